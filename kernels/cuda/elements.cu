// Activations, sums, and movements of rows: a thread an element.

#include "kernels/cuda/kernels.h"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ int64_t item() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__device__ __forceinline__ void store(float& destination, float value, Write mode) {
  destination = mode == Write::accumulate ? destination + value : value;
}

// y = g / (1 + exp(-g)) u
__global__ void __launch_bounds__(kThreads) gated(const float* gate, const float* up, float* y, int64_t n) {
  const int64_t i = item();
  if (i < n) y[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

// With s = 1 / (1 + exp(-g)):  d silu / dg = s (1 + g (1 - s))
__global__ void __launch_bounds__(kThreads) gated_backward(SwiGluBackward a) {
  const int64_t i = item();
  if (i >= a.n) return;
  // Read before either is written: dgate and dup may lie over gate and up.
  const float g = static_cast<const float*>(a.gate)[i], u = static_cast<const float*>(a.up)[i];
  const float d = static_cast<const float*>(a.dy)[i], s = 1.0f / (1.0f + expf(-g));
  if (a.dgate != nullptr)
    store(static_cast<float*>(a.dgate)[i], d * u * (s * (1.0f + g * (1.0f - s))), a.gate_mode);
  if (a.dup != nullptr) store(static_cast<float*>(a.dup)[i], d * (g * s), a.up_mode);
}

__global__ void __launch_bounds__(kThreads) sum(const float* a, const float* b, float* y, int64_t n) {
  const int64_t i = item();
  if (i < n) y[i] = a[i] + b[i];
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gather(const T* table, const int32_t* ids, float* y, int64_t rows, int64_t cols) {
  const int64_t i = item();
  if (i >= rows * cols) return;
  const T value = table[ids[i / cols] * cols + i % cols];
  if constexpr (sizeof(T) == sizeof(float)) {
    y[i] = value;
  } else {
    y[i] = to_float(value);
  }
}

__global__ void __launch_bounds__(kThreads) scatter(ScatterRows a, const int32_t* ids) {
  const int64_t i = item();
  if (i >= a.rows * a.cols) return;
  float& y = static_cast<float*>(a.y)[ids[i / a.cols] * a.cols + i % a.cols];
  store(y, static_cast<const float*>(a.x)[i], a.mode);
}

}  // namespace

void swiglu(Device& d, const SwiGlu& a) {
  if (a.n > 0)
    d.stream.launch(gated, dim3(blocks_for(a.n, kThreads)), dim3(kThreads), 0,
                    static_cast<const float*>(a.gate), static_cast<const float*>(a.up),
                    static_cast<float*>(a.y), a.n);
}

void swiglu_backward(Device& d, const SwiGluBackward& a) {
  if (a.n > 0) d.stream.launch(gated_backward, dim3(blocks_for(a.n, kThreads)), dim3(kThreads), 0, a);
}

void add(Device& d, const Add& a) {
  if (a.n > 0)
    d.stream.launch(sum, dim3(blocks_for(a.n, kThreads)), dim3(kThreads), 0, static_cast<const float*>(a.a),
                    static_cast<const float*>(a.b), static_cast<float*>(a.y), a.n);
}

void gather_rows(Device& d, const GatherRows& a) {
  const int64_t n = a.rows * a.cols;
  if (n == 0) return;
  d.uploads.begin();
  const int32_t* ids = d.uploads.put(d.stream, a.ids, static_cast<size_t>(a.rows));
  const dim3 grid(blocks_for(n, kThreads)), block(kThreads);
  auto* y = static_cast<float*>(a.y);
  if (a.table_type == DType::bf16) {
    d.stream.launch(gather<bf16>, grid, block, 0, static_cast<const bf16*>(a.table), ids, y, a.rows, a.cols);
  } else {
    d.stream.launch(gather<float>, grid, block, 0, static_cast<const float*>(a.table), ids, y, a.rows,
                    a.cols);
  }
}

void scatter_rows(Device& d, const ScatterRows& a) {
  if (a.mode == Write::overwrite)
    d.stream.fill(a.y, static_cast<size_t>(a.total * a.cols) * sizeof(float), 0);
  const int64_t n = a.rows * a.cols;
  if (n == 0) return;
  d.uploads.begin();
  const int32_t* ids = d.uploads.put(d.stream, a.ids, static_cast<size_t>(a.rows));
  d.stream.launch(scatter, dim3(blocks_for(n, kThreads)), dim3(kThreads), 0, a, ids);
}

}  // namespace qlora::cuda
