#include "kernels/scratch.h"

#include <algorithm>

namespace qlora {
namespace {

// The largest of all instruction sets (cpu/gemm-inl.h, cpu/pack-inl.h, cpu/attention-inl.h).
constexpr int64_t kTileRows = 14, kPanelColumns = 32, kChunk = 320, kSuper = 4096, kTileSlack = 16;
constexpr int64_t kFewRows =
    64;  // at least what small_rows-inl.h and decode_rows-inl.h take; they keep x whole
constexpr int64_t kQueries = 84, kLanes = 16;
constexpr size_t kPage = 4096;

}  // namespace

void ScratchNeed::need(Buffer buffer, int64_t elements, DType type) {
  size_t bytes = (static_cast<size_t>(elements) * size_of(type) + kPage - 1) / kPage * kPage;
  bytes_[buffer] = std::max(bytes_[buffer], bytes);
}

// x is packed, padded to whole tiles, kSuper values of k at a time; w one panel at a time.
void ScratchNeed::product(int64_t m, int64_t n, int64_t k, DType type) {
  if (type != DType::f32 || m <= 0 || n <= 0) return;  // the plain loops have one column panel on the heap
  const int64_t depth = std::min(k, kSuper), chunks = depth / (kChunk / 2) + 2;
  need(kPackedX, (m + kTileRows) * depth + (m / 6 + 1) * chunks * kTileSlack);
  if (m <= kFewRows) need(kPackedX, m * k);
  need(kPackedW, kChunk * kPanelColumns);
}

void ScratchNeed::weight(const WeightView& w, int64_t rows, bool forward, DType type) {
  product(rows, forward ? w.out : w.in, forward ? w.in : w.out, type);
  scales(w);
}

// Double-quantized scales are expanded for a call.
void ScratchNeed::scales(const WeightView& w) {
  if (w.absmax_codes != nullptr) need(kAbsmax, (w.out * w.in + w.block - 1) / w.block);
}

void ScratchNeed::add(const Gemm& a) {
  product(a.m, a.n, a.k, a.type);
}

void ScratchNeed::add(const QGemm& a) {
  weight(a.w, a.rows, a.layout == Layout::nt, a.type);
}

void ScratchNeed::add(const Dequantize& a) {
  scales(a.w);
}

void ScratchNeed::add(const Linear& a) {
  for (const LinearTerm& term : a.terms) {
    if (term.y != nullptr) weight(term.w, a.rows, true, a.type);
    for (const LoraPart& part : term.lora) {
      const int64_t rows = part.hi - part.lo;
      if (part.dropout.p > 0) need(kDropped, rows * term.w.in, a.type);
      product(rows, part.rank, term.w.in, a.type);
      product(rows, term.w.out, part.rank, a.type);
    }
  }
}

void ScratchNeed::add(const LinearBackward& a) {
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < a.sequences.size(); ++s)
    longest = std::max<int64_t>(longest, a.sequences[s + 1] - a.sequences[s]);
  for (const LinearBackwardTerm& term : a.terms) {
    const int64_t in = term.w.in, out = term.w.out;
    if (a.dx != nullptr) weight(term.w, a.rows, false, a.type);
    if (a.dx != nullptr && a.mode == Write::accumulate) need(kSum, a.rows * in, a.type);
    for (const LoraPart& part : term.lora) {
      const int64_t rows = part.hi - part.lo;
      need(kLowRank, rows * part.rank, a.type);
      if (part.dropout.p > 0) need(kDropped, rows * in, a.type);
      if (part.dropout.p > 0 && a.dx != nullptr) need(kDelta, rows * in, a.type);
      product(rows, part.rank, out, a.type);
      product(rows, in, part.rank, a.type);
      product(out, part.rank, longest, a.type);
      product(part.rank, in, longest, a.type);
    }
  }
}

void ScratchNeed::add(const Attention& a) {
  if (a.type != DType::f32) return;
  // Every task packs its own small products.
  need(kPackedW, kChunk * kPanelColumns);
  need(kPackedInside, (kQueries + kTileRows) * std::max(a.head_dim, kChunk) + kChunk * kTileSlack);
  for (const SequenceSpan& s : a.sequences)
    need(kScores, std::min(s.q_len, kQueries) * (s.k_len + 2 * kLanes));
}

void ScratchNeed::add(const AttentionBackward& a) {
  add(a.forward);
  bytes_[kGradients] = std::max(bytes_[kGradients], bytes_[kScores]);
}

size_t ScratchNeed::bytes(int threads) const {
  size_t sum = 0;
  for (int i = 0; i < kBuffers; ++i) {
    const bool each = i == kPackedW || i == kPackedInside || i == kAbsmax || i == kScores || i == kGradients;
    sum += bytes_[static_cast<size_t>(i)] * static_cast<size_t>(each ? std::max(1, threads) : 1);
  }
  return sum;
}

}  // namespace qlora
