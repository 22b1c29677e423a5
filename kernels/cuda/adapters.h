#pragma once
// The adapters of a linear layer, all of them through each step in one launch, but a launch a term for dx:
// packing runs costs no launches. y and dx are f32, so an adapter's delta is added before any rounding to
// bf16 by a reader.

#include <span>
#include <vector>

#include "kernels/args_matmul.h"
#include "kernels/cuda/device.h"

namespace qlora::cuda {

// An adapter that has rows and a rank, with its term.
template <class Term>
struct TermPart {
  const Term* term = nullptr;
  const LoraPart* part = nullptr;
  float* du = nullptr;  // backward: s dy b, [rows, rank]
};
using ForwardParts = std::vector<TermPart<LinearTerm>>;
using BackwardParts = std::vector<TermPart<LinearBackwardTerm>>;

template <class Term>
std::vector<TermPart<Term>> parts_of(std::span<const Term> terms) {
  std::vector<TermPart<Term>> parts;
  for (const Term& term : terms)
    for (const LoraPart& part : term.lora)
      if (part.hi > part.lo && part.rank > 0) parts.push_back({&term, &part});
  return parts;
}

// The keys on the device, where a part drops anything.
template <class Term>
const RowKey* upload_keys(Device& d, const std::vector<TermPart<Term>>& parts, const RowKey* keys,
                          int64_t rows) {
  for (const TermPart<Term>& p : parts)
    if (p.part->dropout.p > 0) return d.uploads.put(d.stream, keys, static_cast<size_t>(rows));
  return nullptr;
}

// u = f * keep(x) aᵀ
void multiply_down(Device&, const Linear&, const RowKey* keys, const ForwardParts&);
// y + s u bᵀ: sums that begin at y, where s u is exact. Parts of terms without y have none.
void multiply_up(Device&, const Linear&, const ForwardParts&);

// Room for the du of all.
void place_low_rank(Device&, BackwardParts&);
// du = s dy b
void low_rank_gradients(Device&, const LinearBackward&, const BackwardParts&);
// grad_b += s dyᵀ u;  grad_a += f * duᵀ keep(x), sequence after sequence
void adapter_gradients(Device&, const LinearBackward&, const RowKey* keys, const BackwardParts&);
// dx + keep(f * du a), term after term: sums that begin at dx, where nothing drops
void share_gradient(Device&, const LinearBackward&, const RowKey* keys, const BackwardParts&, float* dx);

}  // namespace qlora::cuda
