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

// A quantized matrix [rows, cols] as 4-bit codes of blocks over the flattened elements.
struct Codes {
  const uint8_t* data = nullptr;  // two codes a byte, the first in the high nibble
  const float* levels = nullptr;  // 16 values
  const float* absmax = nullptr;  // one per block, from `first_block` on; null: still double-quantized
  int64_t rows = 0, cols = 0, block = 64;
  int64_t first_block = 0;
  const WeightView* nested = nullptr;  // where the scales lie when absmax is null
};

// y = alpha x w (or y += alpha x w), laid out as `layout` says (args_matmul.h), rows at the given strides (in
// elements). w: `codes` when it is not null (nt: w is [n, k]; nn: w is [k, n]; then ldw is not used), else
// `dense_bf16` (bit patterns) when that is not null, else `dense`.
struct GemmArgs {
  Layout layout = Layout::nt;
  const float* x = nullptr;
  const float* dense = nullptr;
  const uint16_t* dense_bf16 = nullptr;
  const Codes* codes = nullptr;
  float* y = nullptr;
  int64_t ldx = 0, ldw = 0, ldy = 0;
  int64_t m = 0, n = 0, k = 0;
  float alpha = 1;
  bool add = false;
};

// y[rows, w.rows] = x wᵀ (or += that) in the decode class (decode_rows-inl.h), all contiguous.
struct DecodeArgs {
  const float* x = nullptr;
  const Codes* codes = nullptr;
  float* y = nullptr;
  int64_t rows = 0;
  bool add = false;
};

// y[rows, cols] = x with dropout (or y += that): DropRows of Reference, in f32.
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
  // False, with nothing done, where the decode class has no kernel for such codes: use gemm.
  bool (*decode_rows)(const DecodeArgs&) = nullptr;
  void (*dequantize)(const Codes&, float* y) = nullptr;

  void (*attention)(const Attention&, const SequenceSpan*, int64_t sequences) = nullptr;
  void (*attention_backward)(const AttentionBackward&, const SequenceSpan*, int64_t sequences) = nullptr;

  void (*rms_norm)(const RmsNorm&) = nullptr;
  void (*rms_norm_backward)(const RmsNormBackward&) = nullptr;
  void (*swiglu)(const SwiGlu&) = nullptr;
  void (*swiglu_backward)(const SwiGluBackward&) = nullptr;
  void (*rope)(const Rope&) = nullptr;
  void (*drop_rows)(const DropArgs&) = nullptr;
  void (*cross_entropy)(const CrossEntropy&) = nullptr;
  // y[i] = exp(x[i]), for tests.
  void (*exp)(const float* x, float* y, int64_t n) = nullptr;
};

// One table per region. Call their functions only where the processor has the instructions (isa.h).
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_bf16_kernels();

}  // namespace qlora::cpu
