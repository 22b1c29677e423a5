#pragma once
// The linear layer of many rows: weights decoded to bf16, then products by cuBLAS (many_rows.cu). What it
// needs of the device is said here, for the kernels and for the plan (kernels/device_scratch.h).
//
// An adapter of a layer's only run joins the products of the layer as further columns and rows:
//   y  = [x | s u] [w | b]ᵀ                       u = f * keep(x) aᵀ
//   dx = [dy₁ | dy₂ | .. | du₁ | du₂ | ..] [w₁; w₂; ..; a₁; a₂; ..]       du = s dy b
// All are padded with zeros to multiples of eight, 16 bytes.

#include <algorithm>
#include <cmath>

#include "kernels/args_matmul.h"

namespace qlora::cuda {

// Up to one tile of rows (tiles.cuh) the kernels on codes decode a weight once; more rows come here.
inline constexpr int64_t kFewRows = 64;
// Decoded weights at a time, unless one row or 64 columns of a matrix are more: a layer's matrices go through
// in pieces of rows (forward) or columns (backward), which leaves every sum as it is.
inline constexpr int64_t kDecodedBytes = int64_t{128} << 20;
// What NVIDIA recommends for compute capability 9.0.
inline constexpr size_t kBlasWorkspace = size_t{32} << 20;

inline int64_t padded(int64_t n) {
  return (n + 7) / 8 * 8;
}

inline bool many_rows(const Linear& a) {
  return a.rows > kFewRows && is_bf16(a.operands) && a.numerics == Numerics::exact && !a.terms.empty();
}
inline bool many_rows(const LinearBackward& a) {
  return a.rows > kFewRows && is_bf16(a.operands) && !a.terms.empty();
}

// The part that is alone in its term and covers every row; null where there is none.
template <class Term>
const LoraPart* whole_part(const Term& term, int64_t rows) {
  const LoraPart* only = nullptr;
  for (const LoraPart& part : term.lora) {
    if (part.hi <= part.lo || part.rank <= 0) continue;
    if (only != nullptr) return nullptr;
    only = &part;
  }
  return only != nullptr && only->lo == 0 && only->hi == rows ? only : nullptr;
}

template <class Term>
bool has_parts(const Term& term) {
  return std::any_of(term.lora.begin(), term.lora.end(),
                     [](const LoraPart& part) { return part.hi > part.lo && part.rank > 0; });
}

// Whether s u is s times the u that is rounded to bf16: a power of two.
inline bool exact_scale(const LoraPart& part) {
  int exponent = 0;
  return std::abs(std::frexp(part.scale, &exponent)) == 0.5;
}

// Further columns of the term's product; 0 where its parts are added after it.
inline int64_t forward_tail(const LinearTerm& term, int64_t rows) {
  const LoraPart* part = whole_part(term, rows);
  return part != nullptr && exact_scale(*part) ? padded(part->rank) : 0;
}

// The parts of all terms join the product, or none does: what dropout leaves of du a is known after it.
inline bool joins_backward(const LinearBackward& a) {
  return std::all_of(a.terms.begin(), a.terms.end(), [&](const LinearBackwardTerm& term) {
    const LoraPart* part = whole_part(term, a.rows);
    return !has_parts(term) || (part != nullptr && part->dropout.p <= 0);
  });
}

// Whether sequences are long enough, on average, for a whole run's gradients to be two products of each.
inline bool long_sequences(const LinearBackward& a) {
  constexpr int64_t kLong = 256;
  return !a.sequences.empty() && a.rows >= kLong * (static_cast<int64_t>(a.sequences.size()) - 1);
}

// Whether a product reads the weight where it lies.
inline bool reads_in_place(const WeightView& w) {
  return w.format == Format::dense && w.type == DType::bf16;
}

// How many rows or columns of `width` decoded elements go through at a time, of n: all, or a multiple of 64.
inline int64_t piece(int64_t n, int64_t width) {
  const int64_t most = std::max<int64_t>(64, kDecodedBytes / 2 / std::max<int64_t>(1, width) / 64 * 64);
  return std::min(n, most);
}

// The matrices of a call with room for the adapters of its only run, as they may stay: the same forward and
// backward. Nothing where none is decoded.
struct StackSizes {
  int64_t rows = 0, pitch = 0;
  bool stays = false;
  size_t bytes() const { return static_cast<size_t>(2 * rows * pitch); }
};
// `kept`: bytes for decoded weights that stay (DeviceOptions).
template <class Call>
StackSizes stack_of(const Call& a, size_t kept) {
  StackSizes s;
  int64_t tail = 0;
  for (const auto& term : a.terms) {
    const LoraPart* part = whole_part(term, a.rows);
    const int64_t rank = part == nullptr ? 0 : padded(part->rank);
    s.rows += padded(term.w.out) + rank;
    s.pitch = padded(term.w.in);
    tail = std::max(tail, rank);
  }
  s.pitch += tail;
  s.stays = s.bytes() <= kept;
  return s;
}

// The products of a layer forward.
struct ForwardSizes {
  int64_t in = 0, pitch = 0;  // of x: padded, and with the longest tail
  int64_t decoded = 0;        // elements, the largest piece of a term
  int64_t dropped = 0;        // elements of x that dropout has been over
  int64_t adapter = 0;        // elements of a
  StackSizes stack = {};
};
inline ForwardSizes sizes_of(const Linear& a, size_t kept) {
  ForwardSizes s;
  int64_t tail = 0;
  for (const LinearTerm& term : a.terms) {
    s.in = padded(term.w.in);
    const int64_t own = term.y == nullptr ? 0 : forward_tail(term, a.rows);
    tail = std::max(tail, own);
    if (const LoraPart* part = whole_part(term, a.rows)) {
      s.adapter = std::max(s.adapter, padded(part->rank) * s.in);
      if (part->dropout.p > 0) s.dropped = a.rows * s.in;
    }
    if (term.y != nullptr && !(own == 0 && reads_in_place(term.w)))
      s.decoded = std::max(s.decoded, piece(term.w.out, s.in + own) * (s.in + own));
  }
  s.pitch = s.in + tail;
  if (s.decoded > 0) s.stack = stack_of(a, kept);
  if (s.stack.stays) s.decoded = 0;
  return s;
}

// The product of a layer backward.
struct BackwardSizes {
  bool joins = false;      // the parts
  bool in_place = false;   // of the weight
  int64_t out = 0;         // columns of all dy, padded
  int64_t pitch = 0;       // of [dy | du]
  int64_t columns = 0;     // of dx at a time
  int64_t decoded = 0;     // elements
  int64_t adapter = 0;     // elements of b
  bool gradients = false;  // of whole parts, by cuBLAS
  StackSizes stack = {};
  int64_t x = 0, low = 0;  // elements of x for them; of u, and of du where that is not beside dy
};
inline BackwardSizes sizes_of(const LinearBackward& a, size_t kept) {
  BackwardSizes s;
  s.joins = joins_backward(a);
  int64_t tails = 0;
  for (const LinearBackwardTerm& term : a.terms) {
    s.out += padded(term.w.out);
    if (const LoraPart* part = whole_part(term, a.rows)) {
      s.adapter = std::max(s.adapter, term.w.out * padded(part->rank));
      if (s.joins) tails += padded(part->rank);
    }
  }
  s.pitch = s.out + tails;
  s.gradients = s.adapter > 0 && long_sequences(a);
  for (const LinearBackwardTerm& term : a.terms)
    if (const LoraPart* part = whole_part(term, a.rows); part != nullptr && s.gradients) {
      s.x = a.rows * padded(term.w.in);
      s.low = std::max(s.low, a.rows * padded(part->rank) * (s.joins ? 1 : 2));
    }
  if (a.dx == nullptr) return s;
  const WeightView& first = a.terms[0].w;
  s.in_place = a.terms.size() == 1 && tails == 0 && reads_in_place(first);
  if (!s.in_place) s.stack = stack_of(a, kept);
  const bool all = s.in_place || s.stack.stays;
  s.columns = all ? first.in : piece(first.in, s.pitch);
  s.decoded = all ? 0 : s.pitch * padded(s.columns);
  return s;
}

}  // namespace qlora::cuda
