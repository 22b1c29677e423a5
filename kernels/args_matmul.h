#pragma once
// Arguments of products: dense, quantized, and the linear layer with its adapters. Formulas in words above
// each struct. Sizes are elements; all matrices are contiguous and row-major.

#include <cstdint>
#include <span>

#include "core/base/dtype.h"
#include "kernels/quant/formats.h"

namespace qlora {

// How a product reads the elements of x and w. What is stored stays as it is, and sums are of `type` either
// way.
//   as_stored  as they are (a quantized element: f32(level * absmax)).
//   bf16       each is rounded to bf16, to nearest even, as the product reads it (a quantized element:
//              bf16(f32(level * absmax)), the value bitsandbytes computes with). Values of f64 pass through
//              f32.
//   bf16_amx   the same operands, summed as the tiles of AMX sum them: another order, fast where a processor
//              has AMX.
// Every reader of a stored value rounds it in the same way, so nothing is kept twice and recomputing changes
// no bit. What only such products read may be stored as they read it, a stored operand: bf16, rounded once by
// to_operand() (core/base/half.h) for half the bytes. No bit of a result depends on the choice. x_type,
// y_type and the like say so. REQUIRES of bf16 there: type f32, bf16 operands (of what is read), mode
// overwrite (of what is written), and a backend that has it (Backend::stores_operands).
//
// The f32 sums of bf16 operands are defined to the bit, as vdpbf16ps computes them, on every SIMD backend.
// The values of k are cut into chunks that depend on k alone (chunk_of() in cpu/gemm-inl.h). A chunk is
// summed from zero in pairs (2j, 2j + 1) counted from its first value, a missing last element being zero:
//   sum = fma(x[2j+1], w[2j+1], sum);  sum = fma(x[2j], w[2j], sum)
// The first chunk gives y = alpha * sum, or y = fma(alpha, sum, y) when accumulating; each later one adds
// itself by y = fma(alpha, sum, y). Denormal operands and results of all these operations, and of the
// rounding to bf16, count as zeros.
//
// Those of bf16_amx are those of tdpbf16ps. Chunks, of up to 768 values of k, are whole steps of 32, a
// chunk's first step counting from its first value and what is missing of its last being zero. From sum = 0,
// each step adds
//   even = 0; for j in 0 ... 15: even = fma(x[2j], w[2j], even), and odd of x[2j+1] w[2j+1] likewise;
//   sum = sum + (even + odd)
// and chunks make y as above, denormals as above.
enum class Operands : uint8_t { as_stored, bf16, bf16_amx };

// Every way, and its name ("f32" for as_stored, as `compute_dtype` has it).
inline constexpr Operands kAllOperands[] = {Operands::as_stored, Operands::bf16, Operands::bf16_amx};
constexpr const char* name_of(Operands operands) {
  return operands == Operands::bf16_amx ? "bf16_amx" : operands == Operands::bf16 ? "bf16" : "f32";
}
// Whether a product rounds its operands to bf16.
constexpr bool is_bf16(Operands operands) {
  return operands != Operands::as_stored;
}

// How a product may round beyond that; chosen by the kind of request, never by the number of rows.
//   exact   training, prompts, every likelihood: a row has the bits that it has among any number of rows.
//   decode  token steps of generation: y = x Wᵀ from codes may run in whole numbers on backends that have
//           it (cpu/decode_rows-inl.h states its error). Elsewhere, and for all other weights, the same
//           as exact. A row's bits do not depend on the others here either.
enum class Numerics : uint8_t { exact, decode };

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
  DType type = DType::f32;  // of x and y, and of the sums: f32 or f64
  DType w_type = type;      // of the elements of w: the same, or bf16
  Operands operands = Operands::as_stored;
  DType x_type = type;  // of the elements of x: the same, or those of a stored operand (not tn)
};

// A frozen weight [out, in] on the device. Dense: `data` holds elements of `type`. Quantized:
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
  DType type = DType::f32;  // of dense elements: that of the call, or bf16
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
  Operands operands = Operands::as_stored;
  Numerics numerics = Numerics::exact;
  DType x_type = type;  // of x: `type`, or a stored operand (exact)
};

// dst[out, in] = the weight as elements of `type` (f32, f64, bf16, f16): one f32 product level*absmax, then
// one rounding. A dense weight holds elements of `type`, or of bf16 that become f32 or f64.
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

// Dropout by random numbers that anybody may draw again: keep() leaves element (row, column) as it is iff
//   uniform01(philox(key, column / 4, position, example, step).v[column % 4]) >= p
// and makes it 0 else. f = f32(1 / (1 - p)) multiplies sums. p = 0: f is 1, and no number is drawn.
struct Dropout {
  float p = 0;
  uint64_t key = 0;   // mix_seed(run's seed, stream of the linear's name)
  uint32_t step = 0;  // optimizer step
};

// Bytes of a row's bits in LoraPart::kept: whole groups of 64 columns.
constexpr int64_t kept_bytes(int64_t cols) {
  return (cols + 63) / 64 * 8;
}

// One adapter on rows [lo, hi) of the token axis.
//   forward:  u = f * keep(x) aᵀ ;  y += scale * u bᵀ
//   backward: du = scale * dy b ;  grad_b += scale * dyᵀ u ;  grad_a += f * duᵀ keep(x) ;
//             dx += keep(f * du a)
// Gradients add each sequence in order, in chunks of rows, each summed from zero. The chunks depend on the
// sequence's length alone, so that cutting an effective batch into micro-batches changes no bit.
struct LoraPart {
  int64_t lo = 0, hi = 0;
  const void* a = nullptr;  // [rank, in]
  const void* b = nullptr;  // [out, rank]
  int64_t rank = 0;
  double scale = 1;
  Dropout dropout = {};
  void* u = nullptr;  // [hi - lo, rank]: written by forward, read by backward
  // What dropout keeps, likewise: [hi - lo, kept_bytes(in)]; an element stays where bit column % 8 of byte
  // column / 8 of its row is set. Null: backward draws again. Only of f32, where Backend::keeps_dropout().
  uint8_t* kept = nullptr;
  void* grad_a = nullptr;  // backward only; [rank, in], accumulated
  void* grad_b = nullptr;  // backward only; [out, rank], accumulated
};

// One of up to three weights that share x (q, k, v; gate, up).
struct LinearTerm {
  WeightView w = {};
  const void* bias = nullptr;  // [out] or null
  std::span<const LoraPart> lora = {};
  void* y = nullptr;  // [rows, out]; null: nobody reads it, and only the u of the parts is computed
};

// For every term: y = x Wᵀ, plus every part's delta, plus bias; rounded once to `type`.
struct Linear {
  const void* x = nullptr;  // [rows, in]
  int64_t rows = 0;
  std::span<const LinearTerm> terms = {};
  const RowKey* keys = nullptr;  // host memory, [rows]; needed only with dropout
  DType type = DType::f32;
  Operands operands = Operands::as_stored;  // of all products, those of the parts too
  Numerics numerics = Numerics::exact;      // of x Wᵀ
  DType x_type = type;                      // of x: `type`, or a stored operand (exact)
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
  Operands operands = Operands::as_stored;  // of all products, those of the parts too
  DType x_type = type;                      // of x: `type`, or a stored operand
};

}  // namespace qlora
