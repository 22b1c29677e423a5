// The linear layer. Its sums run on from matrix to matrix, and then into the adapters' products, in one order
// whatever the rows are, and whichever kernels compute them.

#include "kernels/cuda/adapters.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/many_rows.h"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    add_bias(const float* bias, float* y, int64_t rows, int64_t cols) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < rows * cols) y[i] += bias[i % cols];
}

void add_biases(Device& d, const Linear& a) {
  for (const LinearTerm& term : a.terms) {
    if (term.bias == nullptr || term.y == nullptr) continue;
    d.stream.launch(add_bias, dim3(blocks_for(a.rows * term.w.out, kThreads)), dim3(kThreads), 0,
                    static_cast<const float*>(term.bias), static_cast<float*>(term.y), a.rows, term.w.out);
  }
}

// By tiles, from codes as they are.
void linear_by_tiles(Device& d, const Linear& a) {
  for (const LinearTerm& term : a.terms)
    if (term.y != nullptr)
      qgemm(d, {.layout = Layout::nt,
                .x = a.x,
                .w = term.w,
                .y = term.y,
                .rows = a.rows,
                .operands = a.operands,
                .numerics = a.numerics});
  const ForwardParts parts = parts_of(a.terms);
  multiply_down(d, a, upload_keys(d, parts, a.keys, a.rows), parts);
  multiply_up(d, a, parts);
}

void backward_by_tiles(Device& d, const LinearBackward& a) {
  BackwardParts parts = parts_of(a.terms);
  const RowKey* keys = upload_keys(d, parts, a.keys, a.rows);
  place_low_rank(d, parts);
  low_rank_gradients(d, a, parts);
  adapter_gradients(d, a, keys, parts);
  if (a.dx == nullptr) return;
  const int64_t n = a.rows * a.terms[0].w.in;
  // A destination that already holds something receives the finished sum once.
  const bool aside = a.mode == Write::accumulate;
  float* dx = aside ? d.room<float>(Room::y, static_cast<size_t>(n)) : static_cast<float*>(a.dx);
  Sums sums = Sums::overwrite;
  for (const LinearBackwardTerm& term : a.terms) {
    qgemm(d,
          {.layout = Layout::nn, .x = term.dy, .w = term.w, .y = dx, .rows = a.rows, .operands = a.operands},
          sums);
    sums = Sums::go_on;
  }
  share_gradient(d, a, keys, parts, dx);
  if (aside) add(d, {.a = a.dx, .b = dx, .y = a.dx, .n = n});
}

}  // namespace

void linear(Device& d, const Linear& a) {
  if (a.rows == 0) return;
  d.uploads.begin();
  Blas* blas = many_rows(a) ? d.blas() : nullptr;
  if (blas != nullptr) {
    linear(d, *blas, a);
  } else {
    linear_by_tiles(d, a);
  }
  add_biases(d, a);
}

void linear_backward(Device& d, const LinearBackward& a) {
  if (a.rows == 0 || a.terms.empty()) return;
  d.uploads.begin();
  Blas* blas = many_rows(a) ? d.blas() : nullptr;
  if (blas != nullptr) return linear_backward(d, *blas, a);
  backward_by_tiles(d, a);
}

}  // namespace qlora::cuda
