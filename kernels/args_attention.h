#pragma once
// Arguments of attention over ragged sequences.

#include <cstdint>
#include <span>

#include "core/base/dtype.h"
#include "kernels/args_matmul.h"

namespace qlora {

// Sums over keys run in tiles of so many, counted from key 0 of the sequence.
inline constexpr int64_t kKeyTile = 256;

// kKeyTile keys and values that several sequences begin with, [kKeyTile, kv_heads, head_dim].
struct SharedTile {
  const void* k = nullptr;
  const void* v = nullptr;
};

// One sequence: its queries are rows [q_row, q_row + q_len) of q (and o), its keys and values rows
// [k_row, k_row + k_len) of k and v. Queries are the last q_len positions of the k_len keys, so query i
// stands at position k_len - q_len + i. In training both ranges are the same rows; with a cache k_len >
// q_len. Forward only: the first keys may lie elsewhere, in whole tiles; row k_row then holds the key that
// follows them. k_len counts them too.
struct SequenceSpan {
  int64_t q_row = 0, q_len = 0, k_row = 0, k_len = 0;
  const SharedTile* shared = nullptr;  // host memory, [shared_tiles]; the pointers inside are the device's
  int64_t shared_tiles = 0;
};

// o = softmax(score + mask) v, per sequence and head; query head h reads key head h / (heads / kv_heads).
//   score = scale * q kᵀ;   softcap c > 0: c tanh(score / c);   bias, if any: + bias[h][position(i) - j]
//
// Mask: causal, and with window > 0 only keys j with position(i) - window < j <= position(i). Sums over keys
// run in tiles counted from key 0 of the sequence, so a bit never depends on what else is in the batch, nor
// on whether keys come from a cache or are shared.
//
// The bias is a function of head and distance alone (ALiBi, T5's relative positions) and frozen: it has no
// gradient. It covers all distances that occur: `distances` is at least the longest k_len.
//
// With bf16 operands all four products (and backward the five) read both sides rounded: q, k, v, dout, and
// the weights and gradients of scores that the kernel computes itself. Weights are exp(score - largest
// score, or the largest so far), rounded before the division by their sum, which adds them as they were.
struct Attention {
  const void* q = nullptr;  // [rows, heads, head_dim]
  const void* k = nullptr;  // [key rows, kv_heads, head_dim]
  const void* v = nullptr;
  void* o = nullptr;    // [rows, heads, head_dim]
  void* lse = nullptr;  // [rows, heads]: log of the sum of exponentials, kept for backward; may be null
  std::span<const SequenceSpan> sequences = {};  // host memory
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  double scale = 1;
  int64_t window = 0;
  DType type = DType::f32;
  Operands operands = Operands::as_stored;
  double softcap = 0;          // 0: none
  const void* bias = nullptr;  // [heads, distances], `type`; or null
  int64_t distances = 0;
  // Of the elements of q, and of k, v and shared tiles: `type`, or stored operands (args_matmul.h); if of q,
  // then of the others, and backward of all or none.
  DType q_type = type, kv_type = type;
};

// Gradients of the same; probabilities are recomputed from lse. A softcap multiplies a score's gradient by
// 1 - (capped score / c)². Overwrites dq, dk, dv in the rows that the
// sequences name; other rows are left alone. REQUIRES: no shared tiles.
struct AttentionBackward {
  Attention forward = {};      // with o and lse of the forward pass
  const void* dout = nullptr;  // [rows, heads, head_dim]
  void* dq = nullptr;          // like q
  void* dk = nullptr;          // like k
  void* dv = nullptr;          // like v
};

}  // namespace qlora
