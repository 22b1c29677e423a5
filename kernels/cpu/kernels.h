#pragma once
// The boundary between ordinary code and the instruction-set regions: plain structs and one table of
// functions per instruction set. The regions know no class, no container and no template from outside; class
// Cpu (cpu.cpp) turns the calls of Backend into calls of a table, and is compiled once, for the baseline
// machine.
//
// All of it computes in f32, with bf16 operands where a product asks for them. Element sums always run in the
// same order, whatever the number of rows or threads.

#include <cstdint>

#include "kernels/args_attention.h"
#include "kernels/args_matmul.h"
#include "kernels/args_pointwise.h"
#include "kernels/args_train.h"

namespace qlora::cpu {

// A quantized matrix [rows, cols] as codes of blocks over the flattened elements.
struct Codes {
  const uint8_t* data = nullptr;  // 4 bits: two codes a byte, the first in the high nibble; 8 bits: int8
  int bits = 4;
  const float* levels = nullptr;  // of every code
  const float* absmax = nullptr;  // one per block, from `first_block` on; null: still double-quantized
  int64_t rows = 0, cols = 0, block = 64;
  int64_t first_block = 0;
  const WeightView* nested = nullptr;  // where the scales lie when absmax is null
};

// Which elements of a matrix dropout keeps: element c of a row stays where bit c % 8 of byte c / 8 of the row
// is set. bits null: all stay.
struct Kept {
  uint8_t* bits = nullptr;
  int64_t ld = 0;    // bytes from row to row: kept_bytes(columns)
  float factor = 1;  // of what they are added up to (Dropout's f)
};

// Where the bits of Kept come from: Dropout on the rows of `keys`.
struct Draw {
  const RowKey* keys = nullptr;  // of the matrix' first row; null: nothing is drawn
  uint64_t key = 0;
  uint32_t step = 0;
  float p = 0;
};

// What an adapter adds to rows [lo, hi) of a product y[m, n], kept elements alone: y += scale * u w, with w
// [n, rank] where the product is nt, [rank, n] where it is nn.
struct Delta {
  int64_t lo = 0, hi = 0, rank = 0;
  const float* u = nullptr;  // [hi - lo, rank]
  const float* w = nullptr;
  float scale = 1;
  Kept kept = {};  // of rows lo ... hi
  // Filled in by the product: u packed, in tiles that begin with that of y at first_tile and chunks of the
  // rank; and where the panel of w lies among those of all deltas.
  float* packed = nullptr;
  int64_t first_tile = 0, tiles = 0, chunk = 0, panel = 0;
};

// y = alpha x w (or y += alpha x w), laid out as `layout` says (args_matmul.h), rows at the given strides (in
// elements). x: `x_bf16` (a stored operand's bit patterns; bf16 operands, not tn) when it is not null, else
// `x`. w: `codes` when it is not null (nt: w is [n, k]; nn: w is [k, n]; then ldw is not used), else
// `dense_bf16` (bit patterns) when that is not null, else `dense`.
struct GemmArgs {
  Layout layout = Layout::nt;
  const float* x = nullptr;
  const uint16_t* x_bf16 = nullptr;
  const float* dense = nullptr;
  const uint16_t* dense_bf16 = nullptr;
  const Codes* codes = nullptr;
  float* y = nullptr;
  int64_t ldx = 0, ldw = 0, ldy = 0;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  bool add = false;
  // Added to every tile of y when it is finished, in this order; nt and nn only.
  Delta* deltas = nullptr;
  int64_t delta_count = 0;
  // The calling thread's last product was packed from the same x, m and k: take that.
  bool same_x = false;
  // No other product takes this x as this one packs it.
  bool x_once = false;
};

// One product of which one side is thin, a rank: the products of an adapter but for its deltas.
//   y[m, n] (+)= alpha * thin wide, m thin: thin is [m, k] or [k, m], wide [n, k] or [k, n], y [m, n] or [n,
//   m].
// The sum over k runs in the chunks of the product gemm, or where `sequences` are given (k is then rows of
// the token axis, the first of them `first_row`) in those of one product per sequence, each added to y in
// turn.
struct ThinProduct {
  const float* thin = nullptr;
  const float* wide = nullptr;
  const uint16_t* wide_bf16 = nullptr;  // in place of wide: a stored operand (bf16 operands)
  float* y = nullptr;
  bool thin_by_k = false, wide_by_k = false, y_by_n = false;  // [k, m], [k, n], [n, m]
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  bool add = false;
  const int32_t* sequences = nullptr;  // sequence i is rows [sequences[i], sequences[i + 1])
  int64_t sequence_count = 0, first_row = 0;
  // Dropout of `wide`. draw: the bits are drawn here, for rows of n (wide is not by k), into `kept`, or where
  // it has no bits into scratch; each row of them has draw_cols columns. drops: wide is read through them.
  Draw draw = {};
  int64_t draw_cols = 0;
  Kept kept = {};
  bool drops = false;
  // Filled in by the call: thin packed, and how many floats of it each of its tiles has; panels of wide to a
  // task.
  float* packed = nullptr;
  int64_t tile_floats = 0, together = 1;
};

// How a format turns x = w / absmax into a code. Of 8 bits: to the nearest whole number of 127ths (Int8), and
// what follows means nothing. Of 4 bits: codes[r], where the rank r is how many of the boundaries lie below
// x. Numbers from -1 to 1 fall into 32 cells, floor(kCells * x) from -16 to 15, so small that a rank is that
// of the cell's first number or the next one. Made by code_search.h.
inline constexpr float kCells = 15.9375f;
struct CodeSearch {
  int bits = 4;
  float boundaries[16] = {};  // ascending; the last is infinity
  uint8_t codes[16] = {};
  uint8_t base[32] = {};  // rank of the first number of cells 0 to 15, then -16 to -1
  float like_nan = 0;     // an x with the code of NaN
  uint8_t zero = 0;       // the code of zero
  bool usable = true;     // no cell holds two boundaries; else the plain loops must encode
};

// Blocks of codes and their absmax from n weights, byte for byte as encode() in quant/encode.h defines them.
struct EncodeArgs {
  const CodeSearch* search = nullptr;
  const float* weights = nullptr;
  int64_t n = 0, block = 64;
  uint8_t* codes = nullptr;
  float* absmax = nullptr;
};

// For every term: y[rows, w.rows] = x wᵀ (or += that) in the decode class (decode_rows-inl.h), all
// contiguous.
struct DecodeTerm {
  Codes w = {};
  float* y = nullptr;
};
struct DecodeArgs {
  const float* x = nullptr;
  const DecodeTerm* terms = nullptr;
  int64_t count = 0, rows = 0;
  bool add = false;
};

// y[rows, cols] = factor * what dropout keeps of x (or y += that): DropRows of Reference, in f32.
struct DropArgs {
  const float* x = nullptr;
  float* y = nullptr;
  int64_t rows = 0, cols = 0;
  const RowKey* keys = nullptr;
  uint64_t key = 0;
  uint32_t step = 0;
  float p = 0, factor = 1;
  bool add = false;
};

// The functions of one instruction set.
struct Kernels {
  const char* name = "";
  int lanes = 0;
  // Peak probe: 2 * lanes * 12 * rounds flops of independent multiply-adds in registers; returns their sum.
  float (*fma_peak)(int64_t rounds) = nullptr;

  void (*gemm)(const GemmArgs&) = nullptr;
  // The same with bf16 operands (Operands::bf16), by vdpbf16ps where the table is of a region that has it;
  // and always as two multiply-adds on f32, which gives the same bits.
  void (*gemm_bf16)(const GemmArgs&) = nullptr;
  void (*gemm_bf16_fma)(const GemmArgs&) = nullptr;
  // With Operands::bf16_amx, by tiles where the table is of a region that has them; and always as
  // multiply-adds.
  void (*gemm_amx)(const GemmArgs&) = nullptr;
  void (*gemm_amx_fma)(const GemmArgs&) = nullptr;
  // Several thin products, at once.
  void (*thin)(ThinProduct*, int64_t count) = nullptr;
  void (*thin_bf16)(ThinProduct*, int64_t count) = nullptr;
  void (*thin_amx)(ThinProduct*, int64_t count) = nullptr;
  void (*thin_amx_fma)(ThinProduct*, int64_t count) = nullptr;
  // False, with nothing done, where the decode class has no kernel for such codes: use gemm.
  bool (*decode_rows)(const DecodeArgs&) = nullptr;
  // The same bits; a row by itself reads codes from two places at a time.
  bool (*decode_rows_halves)(const DecodeArgs&) = nullptr;
  // The same bits, by tiles where the table is of a region that has them.
  bool (*decode_rows_amx)(const DecodeArgs&) = nullptr;
  // The whole matrix, as f32 and as bf16 bit patterns.
  void (*dequantize)(const Codes&, float* y) = nullptr;
  void (*dequantize_bf16)(const Codes&, uint16_t* y) = nullptr;
  void (*encode)(const EncodeArgs&) = nullptr;
  // y[i] = to_operand(x[i]) of core/base/half.h, as bit patterns.
  void (*round_operands)(const float* x, int64_t n, uint16_t* y) = nullptr;

  void (*attention)(const Attention&, const SequenceSpan*, int64_t sequences) = nullptr;
  void (*attention_backward)(const AttentionBackward&, const SequenceSpan*, int64_t sequences) = nullptr;
  // The same with bf16 operands, and with those of AMX, by tiles and by multiply-adds.
  void (*attention_bf16)(const Attention&, const SequenceSpan*, int64_t sequences) = nullptr;
  void (*attention_backward_bf16)(const AttentionBackward&, const SequenceSpan*, int64_t sequences) = nullptr;
  void (*attention_amx)(const Attention&, const SequenceSpan*, int64_t sequences) = nullptr;
  void (*attention_backward_amx)(const AttentionBackward&, const SequenceSpan*, int64_t sequences) = nullptr;
  void (*attention_amx_fma)(const Attention&, const SequenceSpan*, int64_t sequences) = nullptr;
  void (*attention_backward_amx_fma)(const AttentionBackward&, const SequenceSpan*,
                                     int64_t sequences) = nullptr;

  void (*rms_norm)(const RmsNorm&) = nullptr;
  void (*rms_norm_backward)(const RmsNormBackward&) = nullptr;
  void (*layer_norm)(const LayerNorm&) = nullptr;
  void (*layer_norm_backward)(const LayerNormBackward&) = nullptr;
  void (*activate)(const Activate&) = nullptr;
  void (*activate_backward)(const ActivateBackward&) = nullptr;
  void (*rope)(const Rope&) = nullptr;
  void (*copy_columns)(const CopyColumns&) = nullptr;
  void (*drop_rows)(const DropArgs&) = nullptr;
  void (*cross_entropy)(const CrossEntropy&) = nullptr;
  void (*softcap)(const Softcap&) = nullptr;
  // y[i] = exp(x[i]), for tests.
  void (*exp)(const float* x, float* y, int64_t n) = nullptr;
};

// Those that read operands in this way.
inline auto gemm_of(const Kernels& t, Operands operands) {
  return operands == Operands::bf16_amx ? t.gemm_amx : operands == Operands::bf16 ? t.gemm_bf16 : t.gemm;
}
inline auto thin_of(const Kernels& t, Operands operands) {
  return operands == Operands::bf16_amx ? t.thin_amx : operands == Operands::bf16 ? t.thin_bf16 : t.thin;
}
inline auto attention_of(const Kernels& t, Operands operands) {
  return operands == Operands::bf16_amx ? t.attention_amx
         : operands == Operands::bf16   ? t.attention_bf16
                                        : t.attention;
}
inline auto attention_backward_of(const Kernels& t, Operands operands) {
  return operands == Operands::bf16_amx ? t.attention_backward_amx
         : operands == Operands::bf16   ? t.attention_backward_bf16
                                        : t.attention_backward;
}

// One table per region. Call their functions only where the processor has the instructions (isa.h).
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_bf16_kernels();

}  // namespace qlora::cpu
