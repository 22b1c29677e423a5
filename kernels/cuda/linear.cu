// The linear layer with its adapters, composed of products. y is f32, so an adapter's delta is added before
// any rounding to bf16 by a reader. Gradients of an adapter add one product per sequence, in order, so that
// cutting a batch into micro-batches changes no bit.

#include <algorithm>

#include "kernels/cuda/kernels.h"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 256;

struct Drop {
  const float* x;
  float* y;
  int64_t rows, cols;
  const RowKey* keys;
  Dropout dropout;
  float factor;
  bool adds;
};

// A thread draws for four neighbouring columns.
__global__ void __launch_bounds__(kThreads) drop(Drop a) {
  const int64_t groups = (a.cols + 3) / 4, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= a.rows * groups) return;
  const int64_t row = i / groups, group = i % groups;
  const RowKey key = a.keys[row];
  const Philox4 bits =
      philox(a.dropout.key, static_cast<uint32_t>(group), key.position, key.example, a.dropout.step);
  for (int64_t c = 4 * group; c < 4 * group + 4 && c < a.cols; ++c) {
    const bool keep = uniform01(bits.v[c % 4]) >= a.dropout.p;
    const float value = keep ? a.x[row * a.cols + c] * a.factor : 0.0f;
    float& y = a.y[row * a.cols + c];
    y = a.adds ? y + value : value;
  }
}

__global__ void __launch_bounds__(kThreads)
    add_bias(const float* bias, float* y, int64_t rows, int64_t cols) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < rows * cols) y[i] += bias[i % cols];
}

// y (+)= x dropped, for rows whose keys are on the device.
void drop_rows(Device& d, const float* x, float* y, int64_t rows, int64_t cols, const RowKey* keys,
               const Dropout& dropout, bool adds) {
  const auto factor = static_cast<float>(1.0 / (1.0 - static_cast<double>(dropout.p)));
  const int64_t n = rows * ((cols + 3) / 4);
  d.stream.launch(drop, dim3(blocks_for(n, kThreads)), dim3(kThreads), 0,
                  Drop{x, y, rows, cols, keys, dropout, factor, adds});
}

bool empty(const LoraPart& part) {
  return part.hi <= part.lo || part.rank <= 0;
}

template <class Terms>
bool drops_any(const Terms& terms) {
  for (const auto& term : terms)
    for (const LoraPart& part : term.lora)
      if (!empty(part) && part.dropout.p > 0) return true;
  return false;
}

// u = drop(x) aᵀ;  y += scale u bᵀ
void part_forward(Device& d, const Linear& a, const LinearTerm& term, const LoraPart& part,
                  const RowKey* keys) {
  const int64_t in = term.w.in, out = term.w.out, rows = part.hi - part.lo;
  const float* x = static_cast<const float*>(a.x) + part.lo * in;
  if (part.dropout.p > 0) {
    auto* dropped = d.room<float>(Room::dropped, static_cast<size_t>(rows * in));
    drop_rows(d, x, dropped, rows, in, keys + part.lo, part.dropout, false);
    x = dropped;
  }
  gemm(d, {.layout = Layout::nt,
           .x = x,
           .w = part.a,
           .y = part.u,
           .m = rows,
           .n = part.rank,
           .k = in,
           .operands = a.operands});
  if (term.y == nullptr) return;
  gemm(d, {.layout = Layout::nt,
           .x = part.u,
           .w = part.b,
           .y = static_cast<float*>(term.y) + part.lo * out,
           .m = rows,
           .n = out,
           .k = part.rank,
           .alpha = part.scale,
           .mode = Write::accumulate,
           .operands = a.operands});
}

// grad_b += scale dyᵀ u;  grad_a += duᵀ drop(x), sequence after sequence.
void part_gradients(Device& d, const LinearBackward& a, const LinearBackwardTerm& term, const LoraPart& part,
                    const RowKey* keys, const float* du) {
  const int64_t in = term.w.in, out = term.w.out, rank = part.rank;
  const float *dy = static_cast<const float*>(term.dy), *u = static_cast<const float*>(part.u);
  const float* x = static_cast<const float*>(a.x) + part.lo * in;
  if (part.grad_a != nullptr && part.dropout.p > 0) {
    auto* dropped = d.room<float>(Room::dropped, static_cast<size_t>((part.hi - part.lo) * in));
    drop_rows(d, x, dropped, part.hi - part.lo, in, keys + part.lo, part.dropout, false);
    x = dropped;
  }
  for (size_t s = 0; s + 1 < a.sequences.size(); ++s) {
    const int64_t lo = std::max<int64_t>(a.sequences[s], part.lo) - part.lo;
    const int64_t hi = std::min<int64_t>(a.sequences[s + 1], part.hi) - part.lo;
    if (hi <= lo) continue;
    if (part.grad_b != nullptr)
      gemm(d, {.layout = Layout::tn,
               .x = dy + (part.lo + lo) * out,
               .w = u + lo * rank,
               .y = part.grad_b,
               .m = out,
               .n = rank,
               .k = hi - lo,
               .alpha = part.scale,
               .mode = Write::accumulate,
               .operands = a.operands});
    if (part.grad_a != nullptr)
      gemm(d, {.layout = Layout::tn,
               .x = du + lo * rank,
               .w = x + lo * in,
               .y = part.grad_a,
               .m = rank,
               .n = in,
               .k = hi - lo,
               .mode = Write::accumulate,
               .operands = a.operands});
  }
}

// du = scale dy b;  gradients;  dx += drop'(du a)
void part_backward(Device& d, const LinearBackward& a, const LinearBackwardTerm& term, const LoraPart& part,
                   const RowKey* keys, float* dx) {
  const int64_t in = term.w.in, out = term.w.out, rows = part.hi - part.lo, rank = part.rank;
  auto* du = d.room<float>(Room::low_rank, static_cast<size_t>(rows * rank));
  gemm(d, {.layout = Layout::nn,
           .x = static_cast<const float*>(term.dy) + part.lo * out,
           .w = part.b,
           .y = du,
           .m = rows,
           .n = rank,
           .k = out,
           .alpha = part.scale,
           .operands = a.operands});
  part_gradients(d, a, term, part, keys, du);
  if (dx == nullptr) return;
  float* share = dx + part.lo * in;
  const bool drops = part.dropout.p > 0;
  auto* delta = drops ? d.room<float>(Room::delta, static_cast<size_t>(rows * in)) : share;
  gemm(d, {.layout = Layout::nn,
           .x = du,
           .w = part.a,
           .y = delta,
           .m = rows,
           .n = in,
           .k = rank,
           .mode = drops ? Write::overwrite : Write::accumulate,
           .operands = a.operands});
  if (drops) drop_rows(d, delta, share, rows, in, keys + part.lo, part.dropout, true);
}

}  // namespace

void linear(Device& d, const Linear& a) {
  if (a.rows == 0) return;
  d.uploads.begin();
  const RowKey* keys =
      drops_any(a.terms) ? d.uploads.put(d.stream, a.keys, static_cast<size_t>(a.rows)) : nullptr;
  for (const LinearTerm& term : a.terms) {
    if (term.y != nullptr)
      qgemm(
          d,
          {.layout = Layout::nt, .x = a.x, .w = term.w, .y = term.y, .rows = a.rows, .operands = a.operands});
    for (const LoraPart& part : term.lora)
      if (!empty(part)) part_forward(d, a, term, part, keys);
    if (term.bias == nullptr || term.y == nullptr) continue;
    d.stream.launch(add_bias, dim3(blocks_for(a.rows * term.w.out, kThreads)), dim3(kThreads), 0,
                    static_cast<const float*>(term.bias), static_cast<float*>(term.y), a.rows, term.w.out);
  }
}

void linear_backward(Device& d, const LinearBackward& a) {
  if (a.rows == 0 || a.terms.empty()) return;
  d.uploads.begin();
  const RowKey* keys =
      drops_any(a.terms) ? d.uploads.put(d.stream, a.keys, static_cast<size_t>(a.rows)) : nullptr;
  const int64_t n = a.rows * a.terms[0].w.in;
  // A destination that already holds something receives the finished sum once.
  const bool aside = a.dx != nullptr && a.mode == Write::accumulate;
  float* dx = aside ? d.room<float>(Room::y, static_cast<size_t>(n)) : static_cast<float*>(a.dx);
  Write mode = Write::overwrite;
  for (const LinearBackwardTerm& term : a.terms) {
    if (dx != nullptr)
      qgemm(d, {.layout = Layout::nn,
                .x = term.dy,
                .w = term.w,
                .y = dx,
                .rows = a.rows,
                .mode = mode,
                .operands = a.operands});
    mode = Write::accumulate;
    for (const LoraPart& part : term.lora)
      if (!empty(part)) part_backward(d, a, term, part, keys, dx);
  }
  if (aside) add(d, {.a = a.dx, .b = dx, .y = a.dx, .n = n});
}

}  // namespace qlora::cuda
