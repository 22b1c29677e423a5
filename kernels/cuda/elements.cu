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

// act(g), and act'(g).
struct Curve {
  float value, slope;
};

// g / (1 + exp(-g));  with s = 1 / (1 + exp(-g)):  s (1 + g (1 - s))
struct Silu {
  static __device__ float value(float g) { return g / (1.0f + expf(-g)); }
  static __device__ Curve at(float g) {
    const float s = 1.0f / (1.0f + expf(-g));
    return {g * s, s * (1.0f + g * (1.0f - s))};
  }
};

// g P(g),  P(g) + g p(g);  P(g) = erfc(-g / sqrt(2)) / 2,  p(g) = exp(-g² / 2) / sqrt(2 pi)
struct Gelu {
  static __device__ float below(float g) { return 0.5f * erfcf(-g * 0.707106781f); }
  static __device__ float value(float g) { return g * below(g); }
  static __device__ Curve at(float g) {
    const float share = below(g);
    return {g * share, share + g * (expf(-0.5f * g * g) * 0.398942280f)};
  }
};

// With 2 u = 2 sqrt(2 / pi) (g + 0.044715 g³) and s = 1 / (1 + exp(-2 u)):  g s,  s + g s (1 - s) 2 u'.  With
// e = exp(-2 |u|) and t = 1 / (1 + e), nothing cancels: s is t or e t, and s (1 - s) is e t².
struct GeluTanh {
  struct Share {
    float s, rest;  // s (1 - s)
  };
  static __device__ Share share(float g) {
    const float e = expf(-1.59576912f * fabsf(g + 0.044715f * g * g * g)), t = 1.0f / (1.0f + e);
    return {g < 0.0f ? e * t : t, e * t * t};
  }
  static __device__ float value(float g) { return g * share(g).s; }
  static __device__ Curve at(float g) {
    const Share share_of_g = share(g);
    const float rise = 1.59576912f * (1.0f + 3.0f * 0.044715f * g * g);
    return {g * share_of_g.s, share_of_g.s + g * share_of_g.rest * rise};
  }
};

struct Relu {
  static __device__ float value(float g) { return g < 0.0f ? 0.0f : g; }  // NaN stays
  static __device__ Curve at(float g) { return {value(g), g > 0.0f ? 1.0f : 0.0f}; }
};

// y = act(g) u, or act(g)
template <class Kind>
__global__ void __launch_bounds__(kThreads)
    activated(const float* gate, const float* up, float* y, int64_t n) {
  const int64_t i = item();
  if (i >= n) return;
  const float value = Kind::value(gate[i]);
  y[i] = up != nullptr ? value * up[i] : value;
}

template <class Kind>
__global__ void __launch_bounds__(kThreads) activated_backward(ActivateBackward a) {
  const int64_t i = item();
  if (i >= a.n) return;
  // Read before either is written: dgate and dup may lie over gate and up.
  const Curve act = Kind::at(static_cast<const float*>(a.gate)[i]);
  const float d = static_cast<const float*>(a.dy)[i];
  const float arriving = a.up != nullptr ? d * static_cast<const float*>(a.up)[i] : d;
  if (a.dgate != nullptr) store(static_cast<float*>(a.dgate)[i], arriving * act.slope, a.gate_mode);
  if (a.dup != nullptr) store(static_cast<float*>(a.dup)[i], d * act.value, a.up_mode);
}

__global__ void __launch_bounds__(kThreads) sum(const float* a, const float* b, float* y, int64_t n) {
  const int64_t i = item();
  if (i < n) y[i] = a[i] + b[i];
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gather(const T* table, const int32_t* ids, float* y, int64_t rows, int64_t cols, float scale) {
  const int64_t i = item();
  if (i >= rows * cols) return;
  const T value = table[ids[i / cols] * cols + i % cols];
  if constexpr (sizeof(T) == sizeof(float)) {
    y[i] = scale * value;
  } else {
    y[i] = scale * to_float(value);
  }
}

__global__ void __launch_bounds__(kThreads) scatter(ScatterRows a, const int32_t* ids) {
  const int64_t i = item();
  if (i >= a.rows * a.cols) return;
  float& y = static_cast<float*>(a.y)[ids[i / a.cols] * a.cols + i % a.cols];
  store(y, static_cast<const float*>(a.x)[i], a.mode);
}

// y[r, c] (+)= x[r, c], rows at their strides
__global__ void __launch_bounds__(kThreads) columns(CopyColumns a) {
  const int64_t i = item();
  if (i >= a.rows * a.cols) return;
  const int64_t row = i / a.cols, c = i % a.cols;
  store(static_cast<float*>(a.y)[row * a.y_stride + c], static_cast<const float*>(a.x)[row * a.x_stride + c],
        a.mode);
}

// body(Kind{}) with the struct of that kind.
template <class Body>
void by_kind(Activation kind, const Body& body) {
  switch (kind) {
    case Activation::silu:
      return body(Silu{});
    case Activation::gelu:
      return body(Gelu{});
    case Activation::gelu_tanh:
      return body(GeluTanh{});
    case Activation::relu:
      return body(Relu{});
  }
}

}  // namespace

void activate(Device& d, const Activate& a) {
  if (a.n == 0) return;
  by_kind(a.kind, [&]<class Kind>(Kind) {
    d.stream.launch(activated<Kind>, dim3(blocks_for(a.n, kThreads)), dim3(kThreads), 0,
                    static_cast<const float*>(a.gate), static_cast<const float*>(a.up),
                    static_cast<float*>(a.y), a.n);
  });
}

void activate_backward(Device& d, const ActivateBackward& a) {
  if (a.n == 0) return;
  by_kind(a.kind, [&]<class Kind>(Kind) {
    d.stream.launch(activated_backward<Kind>, dim3(blocks_for(a.n, kThreads)), dim3(kThreads), 0, a);
  });
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
    d.stream.launch(gather<bf16>, grid, block, 0, static_cast<const bf16*>(a.table), ids, y, a.rows, a.cols,
                    a.scale);
  } else {
    d.stream.launch(gather<float>, grid, block, 0, static_cast<const float*>(a.table), ids, y, a.rows, a.cols,
                    a.scale);
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

void copy_columns(Device& d, const CopyColumns& a) {
  const int64_t n = a.rows * a.cols;
  if (n > 0) d.stream.launch(columns, dim3(blocks_for(n, kThreads)), dim3(kThreads), 0, a);
}

}  // namespace qlora::cuda
