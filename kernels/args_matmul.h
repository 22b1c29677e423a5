#pragma once
// Arguments of products: dense, quantized, and the linear layer with its adapters. Formulas in words above
// each struct. Sizes are elements; all matrices are contiguous and row-major.

#include <cstdint>
#include <span>

#include "core/base/dtype.h"
#include "kernels/quant/formats.h"

namespace qlora {

// What happens to a destination: parameters accumulate, activation gradients do what they are told.
enum class Write : uint8_t { overwrite, accumulate };

enum class Layout : uint8_t {
  nt,  // y[m,n] = alpha * x[m,k] * w[n,k]ᵀ
  nn,  // y[m,n] = alpha * x[m,k] * w[k,n]
  tn,  // y[m,n] = alpha * x[k,m]ᵀ * w[k,n]
};

struct Gemm {
  Layout layout = Layout::nt;
  const void* x = nullptr;
  const void* w = nullptr;
  void* y = nullptr;
  int64_t m = 0, n = 0, k = 0;
  double alpha = 1;
  Write mode = Write::overwrite;
  DType type = DType::f32;  // of x, w and y: f32 or f64
};

// A frozen weight [out, in] on the device. Dense: `data` holds elements of the compute type. Quantized:
// `data` holds packed codes of blocks that run over the flattened matrix, with one absmax per block: either
// f32 (`absmax`) or, double-quantized, u8 codes with their own scales (quant/double_quant.h):
//   absmax[i] = f32(f32(code_map[absmax_codes[i]] * nested_absmax[i / 256]) + nested_offset)
struct WeightView {
  Format format = Format::dense;
  int64_t out = 0, in = 0;
  const void* data = nullptr;
  int64_t block = 0;
  const float* absmax = nullptr;
  const uint8_t* absmax_codes = nullptr;
  const float* nested_absmax = nullptr;
  const float* code_map = nullptr;  // 256 entries
  float nested_offset = 0;
};

// y[rows, out] = x[rows, in] * Wᵀ   (nt, forward)
// y[rows, in]  = x[rows, out] * W   (nn, gradient with respect to activations)
struct QGemm {
  Layout layout = Layout::nt;  // nt or nn
  const void* x = nullptr;
  WeightView w = {};
  void* y = nullptr;
  int64_t rows = 0;
  Write mode = Write::overwrite;
  DType type = DType::f32;
};

// dst[out, in] = the weight as elements of `type` (f32, f64, bf16, f16): one f32 product level*absmax, then
// one rounding. A dense weight must hold elements of `type` already and is copied.
struct Dequantize {
  WeightView w = {};
  void* dst = nullptr;
  DType type = DType::f32;
};

// Where a token row stands in the effective batch of its run: two of the coordinates of its random numbers.
struct RowKey {
  uint32_t example = 0;   // index of its example in the run's effective batch
  uint32_t position = 0;  // index of the token in its sequence
};

// Dropout without a stored mask. Element (row, column) is kept iff
//   uniform01(philox(key, column / 4, position, example, step).v[column % 4]) >= p
// and is then multiplied by f32(1 / (1 - p)). p = 0: everything is kept, no number is drawn.
struct Dropout {
  float p = 0;
  uint64_t key = 0;   // mix_seed(run's seed, stream of the linear's name)
  uint32_t step = 0;  // optimizer step
};

// One adapter on rows [lo, hi) of the token axis.
//   forward:  u = drop(x) aᵀ ;  y += scale * u bᵀ
//   backward: du = scale * dy b ;  grad_b += scale * dyᵀ u ;  grad_a += duᵀ drop(x) ;  dx += drop'(du a)
// Gradients add each sequence in order, in chunks of rows, each summed from zero. The chunks depend on the
// sequence's length alone, so that cutting an effective batch into micro-batches changes no bit.
struct LoraPart {
  int64_t lo = 0, hi = 0;
  const void* a = nullptr;  // [rank, in]
  const void* b = nullptr;  // [out, rank]
  int64_t rank = 0;
  double scale = 1;
  Dropout dropout = {};
  void* u = nullptr;       // [hi - lo, rank]: written by forward, read by backward
  void* grad_a = nullptr;  // backward only; [rank, in], accumulated
  void* grad_b = nullptr;  // backward only; [out, rank], accumulated
};

// One of up to three weights that share x (q, k, v; gate, up).
struct LinearTerm {
  WeightView w = {};
  const void* bias = nullptr;  // [out] or null
  std::span<const LoraPart> lora = {};
  void* y = nullptr;  // [rows, out]
};

// For every term: y = x Wᵀ, plus every part's delta, plus bias; rounded once to `type`.
struct Linear {
  const void* x = nullptr;  // [rows, in]
  int64_t rows = 0;
  std::span<const LinearTerm> terms = {};
  const RowKey* keys = nullptr;  // host memory, [rows]; needed only with dropout
  DType type = DType::f32;
};

struct LinearBackwardTerm {
  WeightView w = {};
  std::span<const LoraPart> lora = {};
  const void* dy = nullptr;  // [rows, out]
};

// dx = sum over terms of dy W (plus the parts' share), summed in term order and written once;
// gradients of the parts are accumulated.
struct LinearBackward {
  const void* x = nullptr;  // [rows, in]; needed only where parts exist
  int64_t rows = 0;
  std::span<const LinearBackwardTerm> terms = {};
  const RowKey* keys = nullptr;             // host memory, [rows]
  std::span<const int32_t> sequences = {};  // host memory: sequence i is rows [sequences[i], sequences[i+1])
  void* dx = nullptr;                       // [rows, in], or null when nobody needs it
  Write mode = Write::overwrite;
  DType type = DType::f32;
};

}  // namespace qlora
