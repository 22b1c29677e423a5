// Dense and quantized products. A product from codes has the bits of one from the decoded matrix.

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/tiles.cuh"

namespace qlora::cuda {
namespace {

// y[m, n] = alpha * sum over k of x(m, k) w(n, k), or added to y, or sums that begin at y.
struct Shape {
  float* y;
  int64_t m, n, k;
  float alpha;
  Sums sums;
};

template <class Tile, class X, class W>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksAtOnce) product(X x, W w, Shape s) {
  Tile::product(
      shared_as<typename Tile::Shared>(), x, w, static_cast<int64_t>(blockIdx.y) * kSide, s.m,
      static_cast<int64_t>(blockIdx.x) * kSide, s.n, s.k,
      [&](int64_t m, int64_t n) { return s.sums == Sums::go_on ? s.y[m * s.n + n] : 0.0f; },
      [&](int64_t m, int64_t n, float sum) {
        float& y = s.y[m * s.n + n];
        y = s.sums == Sums::are_added ? fmaf(s.alpha, sum, y) : s.alpha * sum;
      });
}

template <class Tile, class X, class W>
void launch(Device& d, const X& x, const W& w, const Shape& s) {
  d.stream.launch(product<Tile, X, W>, dim3(blocks_for(s.n, kSide), blocks_for(s.m, kSide)),
                  dim3(Tile::kThreads), sizeof(typename Tile::Shared), x, w, s);
}

template <class X, class W>
void multiply(Device& d, const X& x, const W& w, const Shape& s, Operands operands) {
  if (s.m == 0 || s.n == 0) return;
  if (is_bf16(operands)) return launch<MmaTile>(d, x, w, s);
  launch<PlainTile>(d, x, w, s);
}

template <class T>
void multiply_dense(Device& d, const Gemm& a, const Shape& s) {
  const auto* x = static_cast<const float*>(a.x);
  const auto* w = static_cast<const T*>(a.w);
  switch (a.layout) {
    case Layout::nt:
      return multiply(d, Dense<float, true>{x, a.k}, Dense<T, true>{w, a.k}, s, a.operands);
    case Layout::nn:
      return multiply(d, Dense<float, true>{x, a.k}, Dense<T, false>{w, a.n}, s, a.operands);
    default:
      return multiply(d, Dense<float, false>{x, a.m}, Dense<T, false>{w, a.n}, s, a.operands);
  }
}

void gemm(Device& d, const Gemm& a, Sums sums) {
  const Shape s{static_cast<float*>(a.y), a.m, a.n, a.k, static_cast<float>(a.alpha), sums};
  if (a.w_type == DType::bf16) return multiply_dense<bf16>(d, a, s);
  multiply_dense<float>(d, a, s);
}

Sums sums_of(Write mode) {
  return mode == Write::accumulate ? Sums::are_added : Sums::overwrite;
}

}  // namespace

void gemm(Device& d, const Gemm& a) {
  gemm(d, a, sums_of(a.mode));
}

void qgemm(Device& d, const QGemm& a) {
  qgemm(d, a, sums_of(a.mode));
}

void qgemm(Device& d, const QGemm& a, Sums sums) {
  const bool forward = a.layout == Layout::nt;
  const int64_t n = forward ? a.w.out : a.w.in, k = forward ? a.w.in : a.w.out;
  const bool decodes = a.numerics == Numerics::decode && forward && is_bf16(a.operands);
  if (decodes && few_rows(d, a)) return;
  if (a.w.format == Format::dense) {
    return gemm(d,
                {.layout = a.layout,
                 .x = a.x,
                 .w = a.w.data,
                 .y = a.y,
                 .m = a.rows,
                 .n = n,
                 .k = k,
                 .w_type = a.w.type,
                 .operands = a.operands},
                sums);
  }
  const Shape s{static_cast<float*>(a.y), a.rows, n, k, 1.0f, sums};
  const Dense<float, true> x{static_cast<const float*>(a.x), k};
  const Codes w = codes_of(a.w);
  if (forward) return multiply(d, x, Coded<true>{w, a.w.in}, s, a.operands);
  multiply(d, x, Coded<false>{w, a.w.in}, s, a.operands);
}

}  // namespace qlora::cuda
