// Norms and rotary embedding. A block (norms) or a few threads (rope) a row; sums within a row are taken in
// f64, as everywhere, since the error of a norm touches every later element.

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/kernels.h"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 256;

// The row that a norm is taken of: x, or its sum with the residual, of which a thread reads back only what it
// wrote itself.
template <class Norm>
__device__ const float* normed_row(const Norm& a, int64_t start) {
  const float* x = static_cast<const float*>(a.x) + start;
  if (a.residual == nullptr) return x;
  const float* residual = static_cast<const float*>(a.residual) + start;
  float* total = static_cast<float*>(a.sum) + start;
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads) total[c] = x[c] + residual[c];
  return total;
}

// y = x rstd w,  rstd = 1 / sqrt(mean(x²) + eps);  x is the sum of two where there is a residual
__global__ void __launch_bounds__(kThreads) norm(RmsNorm a) {
  auto& shared = shared_as<BlockSums>();
  const int64_t start = static_cast<int64_t>(blockIdx.x) * a.cols;
  const float *x = normed_row(a, start), *w = static_cast<const float*>(a.w);
  float* y = static_cast<float*>(a.y) + start;
  double squares = 0;
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads)
    squares += static_cast<double>(x[c]) * static_cast<double>(x[c]);
  squares = block_sum(squares, shared.sums);
  const auto rstd = static_cast<float>(1.0 / sqrt(squares / static_cast<double>(a.cols) + a.eps));
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads) y[c] = x[c] * rstd * w[c];
  if (a.rstd != nullptr && threadIdx.x == 0) static_cast<float*>(a.rstd)[blockIdx.x] = rstd;
}

// With g = dy w:  dx = rstd (g - x rstd² mean(g x)), plus what stands there or reaches x beside the norm
__global__ void __launch_bounds__(kThreads) norm_backward(RmsNormBackward a) {
  auto& shared = shared_as<BlockSums>();
  const int64_t start = static_cast<int64_t>(blockIdx.x) * a.cols;
  const float *x = static_cast<const float*>(a.x) + start, *w = static_cast<const float*>(a.w);
  const float* dy = static_cast<const float*>(a.dy) + start;
  const auto* before = static_cast<const float*>(a.mode == Write::accumulate ? a.dx : a.beside);
  float* dx = static_cast<float*>(a.dx) + start;
  const float rstd = static_cast<const float*>(a.rstd)[blockIdx.x];
  double product = 0;
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads)
    product += static_cast<double>(dy[c] * w[c]) * static_cast<double>(x[c]);
  product = block_sum(product, shared.sums);
  const float pull = rstd * rstd * static_cast<float>(product / static_cast<double>(a.cols));
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads) {
    const float own = rstd * (dy[c] * w[c] - x[c] * pull);
    dx[c] = before != nullptr ? before[start + c] + own : own;
  }
}

// y = (x - mean) rstd w + bias,  rstd = 1 / sqrt(mean((x - mean)²) + eps)
__global__ void __launch_bounds__(kThreads) centered_norm(LayerNorm a) {
  auto& shared = shared_as<BlockSums>();
  const int64_t start = static_cast<int64_t>(blockIdx.x) * a.cols;
  const float *x = normed_row(a, start), *w = static_cast<const float*>(a.w);
  const auto* bias = static_cast<const float*>(a.bias);
  float* y = static_cast<float*>(a.y) + start;
  const auto n = static_cast<double>(a.cols);
  double total = 0, squares = 0;
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads) total += static_cast<double>(x[c]);
  const auto mean = static_cast<float>(block_sum(total, shared.sums) / n);
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads) {
    const auto off = static_cast<double>(x[c] - mean);
    squares += off * off;
  }
  const auto rstd = static_cast<float>(1.0 / sqrt(block_sum(squares, shared.sums) / n + a.eps));
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads)
    y[c] = (x[c] - mean) * rstd * w[c] + (bias != nullptr ? bias[c] : 0.0f);
  if (threadIdx.x != 0) return;
  if (a.mean != nullptr) static_cast<float*>(a.mean)[blockIdx.x] = mean;
  if (a.rstd != nullptr) static_cast<float*>(a.rstd)[blockIdx.x] = rstd;
}

// With h = (x - mean) rstd and g = dy w:  dx = rstd (g - mean(g) - h mean(g h)), plus what stands there or
// reaches x beside the norm
__global__ void __launch_bounds__(kThreads) centered_norm_backward(LayerNormBackward a) {
  auto& shared = shared_as<BlockSums>();
  const int64_t start = static_cast<int64_t>(blockIdx.x) * a.cols;
  const float *x = static_cast<const float*>(a.x) + start, *w = static_cast<const float*>(a.w);
  const float* dy = static_cast<const float*>(a.dy) + start;
  const auto* before = static_cast<const float*>(a.mode == Write::accumulate ? a.dx : a.beside);
  float* dx = static_cast<float*>(a.dx) + start;
  const float mean = static_cast<const float*>(a.mean)[blockIdx.x];
  const float rstd = static_cast<const float*>(a.rstd)[blockIdx.x];
  const auto n = static_cast<double>(a.cols);
  double total = 0, product = 0;
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads) {
    const float g = dy[c] * w[c];
    total += static_cast<double>(g);
    product += static_cast<double>(g) * static_cast<double>((x[c] - mean) * rstd);
  }
  const auto level = static_cast<float>(block_sum(total, shared.sums) / n);
  const auto pull = static_cast<float>(block_sum(product, shared.sums) / n);
  for (int64_t c = threadIdx.x; c < a.cols; c += kThreads) {
    const float own = rstd * (dy[c] * w[c] - level - (x[c] - mean) * rstd * pull);
    dx[c] = before != nullptr ? before[start + c] + own : own;
  }
}

// Its 32 bytes of local memory are those of cosf and sinf, for large angles.
__global__ void __launch_bounds__(kThreads)
    angles(const int32_t* positions, const float* inv_freq, float* cosines, float* sines, int64_t rows,
           int64_t half, float scale) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows * half) return;
  const float angle = static_cast<float>(positions[i / half]) * inv_freq[i % half];
  cosines[i] = cosf(angle) * scale;
  sines[i] = sinf(angle) * scale;
}

// y1 = x1 cos - x2 sin;  y2 = x2 cos + x1 sin.  One thread a pair, and one an element that passes.
__global__ void __launch_bounds__(kThreads) rotate(Rope a) {
  const int64_t turned = a.rotary_dim > 0 ? a.rotary_dim : a.head_dim, half = turned / 2;
  const int64_t items = half + a.head_dim - turned;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= a.rows * a.heads * items) return;
  const int64_t head = i / items, j = i % items, angle = head / a.heads * half + j;
  const auto* x = static_cast<const float*>(a.x);
  auto* y = static_cast<float*>(a.y);
  const bool adds = a.mode == Write::accumulate;
  if (j >= half) {
    const int64_t passes = head * a.head_dim + half + j;
    y[passes] = adds ? y[passes] + x[passes] : x[passes];
    return;
  }
  const int64_t at = head * a.head_dim + j;
  const float x1 = x[at], x2 = x[at + half], c = static_cast<const float*>(a.cos)[angle];
  const float turn = static_cast<const float*>(a.sin)[angle], s = a.inverse ? -turn : turn;
  const float y1 = x1 * c - x2 * s, y2 = x2 * c + x1 * s;
  y[at] = adds ? y[at] + y1 : y1;
  y[at + half] = adds ? y[at + half] + y2 : y2;
}

}  // namespace

void rms_norm(Device& d, const RmsNorm& a) {
  if (a.rows > 0)
    d.stream.launch(norm, dim3(static_cast<unsigned>(a.rows)), dim3(kThreads), sizeof(BlockSums), a);
}

void rms_norm_backward(Device& d, const RmsNormBackward& a) {
  if (a.rows > 0)
    d.stream.launch(norm_backward, dim3(static_cast<unsigned>(a.rows)), dim3(kThreads), sizeof(BlockSums), a);
}

void layer_norm(Device& d, const LayerNorm& a) {
  if (a.rows > 0)
    d.stream.launch(centered_norm, dim3(static_cast<unsigned>(a.rows)), dim3(kThreads), sizeof(BlockSums), a);
}

void layer_norm_backward(Device& d, const LayerNormBackward& a) {
  if (a.rows > 0)
    d.stream.launch(centered_norm_backward, dim3(static_cast<unsigned>(a.rows)), dim3(kThreads),
                    sizeof(BlockSums), a);
}

void rope_table(Device& d, const RopeTable& a) {
  const int64_t n = a.rows * a.half;
  if (n == 0) return;
  d.uploads.begin();
  d.stream.launch(angles, dim3(blocks_for(n, kThreads)), dim3(kThreads), 0,
                  d.uploads.put(d.stream, a.positions, static_cast<size_t>(a.rows)),
                  d.uploads.put(d.stream, a.inv_freq, static_cast<size_t>(a.half)),
                  static_cast<float*>(a.cos), static_cast<float*>(a.sin), a.rows, a.half,
                  static_cast<float>(a.attention_scale));
}

void rope(Device& d, const Rope& a) {
  const int64_t n = a.rows * a.heads * (a.head_dim - rotated(a) / 2);
  if (n > 0) d.stream.launch(rotate, dim3(blocks_for(n, kThreads)), dim3(kThreads), 0, a);
}

}  // namespace qlora::cuda
