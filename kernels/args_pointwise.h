#pragma once
// Arguments of norms, rotary embedding, activations and row movements. Matrices are contiguous and row-major.

#include <cstdint>

#include "core/base/dtype.h"
#include "kernels/args_matmul.h"

namespace qlora {

// y = x / sqrt(mean(x²) + eps) * w, per row. rstd [rows] is kept for backward; may be null. With a residual,
// x + residual stands for x: rounded once, written to sum, and read from there by everybody.
struct RmsNorm {
  const void* x = nullptr;         // [rows, cols]
  const void* residual = nullptr;  // [rows, cols] or null
  void* sum = nullptr;             // [rows, cols]; only with a residual
  const void* w = nullptr;         // [cols]
  void* y = nullptr;
  void* rstd = nullptr;
  int64_t rows = 0, cols = 0;
  double eps = 1e-5;
  DType type = DType::f32;
  DType y_type = type;  // of y: `type`, or a stored operand (args_matmul.h)
};

// dx of the same: with g = dy * w,  dx = rstd * (g - x * rstd² * mean(g * x)).  In mode overwrite, a gradient
// that reaches x beside the norm (`beside`, not null) is added to it.
struct RmsNormBackward {
  const void* dy = nullptr;
  const void* x = nullptr;
  const void* w = nullptr;
  const void* rstd = nullptr;
  const void* beside = nullptr;  // [rows, cols] or null
  void* dx = nullptr;
  int64_t rows = 0, cols = 0;
  Write mode = Write::overwrite;
  DType type = DType::f32;
};

// y = (x - mean) * rstd * w + bias, per row, with mean = mean(x) and rstd = 1 / sqrt(mean((x - mean)²) +
// eps). mean and rstd [rows] are kept for backward; both may be null. A residual as in RmsNorm.
struct LayerNorm {
  const void* x = nullptr;         // [rows, cols]
  const void* residual = nullptr;  // [rows, cols] or null
  void* sum = nullptr;             // [rows, cols]; only with a residual
  const void* w = nullptr;         // [cols]
  const void* bias = nullptr;      // [cols] or null
  void* y = nullptr;
  void* mean = nullptr;
  void* rstd = nullptr;
  int64_t rows = 0, cols = 0;
  double eps = 1e-5;
  DType type = DType::f32;
  DType y_type = type;  // of y: `type`, or a stored operand (args_matmul.h)
};

// dx of the same: with h = (x - mean) * rstd and g = dy * w,  dx = rstd * (g - mean(g) - h * mean(g * h)).
// `beside` as in RmsNormBackward.
struct LayerNormBackward {
  const void* dy = nullptr;
  const void* x = nullptr;
  const void* w = nullptr;
  const void* mean = nullptr;
  const void* rstd = nullptr;
  const void* beside = nullptr;  // [rows, cols] or null
  void* dx = nullptr;
  int64_t rows = 0, cols = 0;
  Write mode = Write::overwrite;
  DType type = DType::f32;
};

// cos and sin [rows, half] of f32(position * inv_freq[j]) * attention_scale, evaluated in `type`
// (f64: the angle is the f64 product of the position and the f32 frequency).
struct RopeTable {
  const int32_t* positions = nullptr;  // host memory, [rows]
  const float* inv_freq = nullptr;     // host memory, [half]
  void* cos = nullptr;
  void* sin = nullptr;
  int64_t rows = 0, half = 0;
  double attention_scale = 1;
  DType type = DType::f32;
};

// Rotates the halves of every head: y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin, where x1 is the first half.
// inverse (the backward pass): sin is negated. y may be x, where types are the same. In mode accumulate y +=
// (y must not be x). With rotary_dim > 0, only so many elements of a head, from its first on, are what is
// halved and rotated; the rest passes as it is.
struct Rope {
  const void* x = nullptr;  // [rows, heads, head_dim]
  void* y = nullptr;
  const void* cos = nullptr;  // [rows, rotated(this) / 2]
  const void* sin = nullptr;
  int64_t rows = 0, heads = 0, head_dim = 0;
  int64_t rotary_dim = 0;  // 0: head_dim
  bool inverse = false;
  Write mode = Write::overwrite;
  DType type = DType::f32;
  DType y_type = type;  // of y: `type`, or a stored operand (args_matmul.h)
};

inline constexpr int64_t rotated(const Rope& a) {
  return a.rotary_dim > 0 ? a.rotary_dim : a.head_dim;
}

//   silu: g / (1 + exp(-g)).   relu: max(g, 0), of slope 0 at 0.
//   gelu: g P(g), with P the normal distribution's function, P(g) = (1 + erf(g / sqrt(2))) / 2.
//   gelu_tanh: g / (1 + exp(-2 u)), with u = sqrt(2 / pi) (g + 0.044715 g³); that is g (1 + tanh(u)) / 2.
//
enum class Activation : uint8_t { silu, gelu, gelu_tanh, relu };

// y = act(gate) * up, or act(gate) where up is null.
struct Activate {
  Activation kind = Activation::silu;
  const void* gate = nullptr;  // [n]
  const void* up = nullptr;    // [n] or null
  void* y = nullptr;
  int64_t n = 0;
  DType type = DType::f32;
  DType y_type = type;  // of y: `type`, or a stored operand (args_matmul.h)
};

// dgate = dy * up * act'(gate), dup = dy * act(gate). dgate may be gate, and dup up.
struct ActivateBackward {
  Activation kind = Activation::silu;
  const void* dy = nullptr;
  const void* gate = nullptr;
  const void* up = nullptr;  // null as in the forward pass
  void* dgate = nullptr;     // null when not needed
  void* dup = nullptr;
  int64_t n = 0;
  Write gate_mode = Write::overwrite, up_mode = Write::overwrite;
  DType type = DType::f32;
};

// y = a + b. y may be a or b.
struct Add {
  const void* a = nullptr;
  const void* b = nullptr;
  void* y = nullptr;
  int64_t n = 0;
  DType type = DType::f32;
};

// y[i] = scale * table[ids[i]] for rows of `cols` elements; a bf16 table becomes elements of `type`, exactly.
struct GatherRows {
  const void* table = nullptr;
  const int32_t* ids = nullptr;  // host memory, [rows]
  void* y = nullptr;
  int64_t rows = 0, cols = 0;
  DType type = DType::f32;
  DType table_type = type;  // of the table: the same, or bf16
  float scale = 1;
};

// The transpose of GatherRows for distinct ids: y[ids[i]] (+)= x[i]; in mode overwrite all other of the
// `total` rows of y become zero.
struct ScatterRows {
  const void* x = nullptr;       // [rows, cols]
  const int32_t* ids = nullptr;  // host memory, [rows], distinct
  void* y = nullptr;             // [total, cols]
  int64_t rows = 0, cols = 0, total = 0;
  Write mode = Write::overwrite;
  DType type = DType::f32;
};

// Columns of one matrix into columns of another: y[r, c] (+)= x[r, c] for c < cols. Rows of x and y begin
// x_stride and y_stride elements after one another, so that either may be some columns of a wider matrix; its
// others are left alone.
struct CopyColumns {
  const void* x = nullptr;
  void* y = nullptr;
  int64_t rows = 0, cols = 0;
  int64_t x_stride = 0, y_stride = 0;
  Write mode = Write::overwrite;
  DType type = DType::f32;
};

}  // namespace qlora
