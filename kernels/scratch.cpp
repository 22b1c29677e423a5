#include "kernels/scratch.h"

#include <algorithm>

namespace qlora {
namespace {

// The largest of all instruction sets (cpu/gemm-inl.h, cpu/pack-inl.h, cpu/thin-inl.h, cpu/attention-inl.h).
constexpr int64_t kTileRows = 14, kPanelColumns = 32, kChunk = 320, kBf16Chunk = 1024, kSuper = 4096,
                  kTileSlack = 16, kPanelsTogether = 8, kOwnRows = (768 << 10) / 4;
constexpr int64_t kAmxRows = 32, kAmxDepth = 32, kAmxChunk = 768;  // cpu/amx_tiles-inl.h
// cpu/amx_blocks-inl.h: bytes that a block has of a chunk of x, and w where it is packed whole, which fewer
// rows are not.
constexpr int64_t kAmxBlock = 384 << 10, kAmxWhole = 2 << 20, kAmxBlockRows = 512;
constexpr int64_t kFewRows = 64;      // at least what cpu/small_rows-inl.h takes; it keeps x whole
constexpr int64_t kDropRows = 64;     // reference/linear.cpp
constexpr int64_t kDecodeMore = 516;  // floats that cpu/decode_rows-inl.h has for what goes round
constexpr int64_t kQueries = 84, kAmxQueries = 128, kLanes = 16;
constexpr size_t kPage = 4096;

// Chunks of k are whole multiples of it.
int64_t step_of(Operands operands) {
  return operands == Operands::bf16_amx ? kAmxDepth : 8;
}
// Rows packed as tiles of AMX: `tails` chunks of k end within a step.
int64_t in_tiles(int64_t rows, int64_t k, int64_t tails) {
  return (rows + kAmxRows - 1) / kAmxRows * kAmxRows * (k + kAmxDepth * (tails + 1) - 1) / 2;
}
int64_t amx_chunks(int64_t k) {
  return (k + kAmxChunk - 1) / kAmxChunk;
}
// Of a block of rows that a task packs for itself.
int64_t block_in_tiles(int64_t rows, int64_t k) {
  const int64_t tile = kAmxRows * (k / amx_chunks(k) + 1) * 2;
  return in_tiles(std::min(rows, (kAmxBlock + tile - 1) / tile * kAmxRows), std::min(k, kSuper), 0);
}
// Of w where all of it is packed at once.
int64_t whole_w(int64_t n, int64_t k) {
  const int64_t panels = (n + kPanelColumns - 1) / kPanelColumns * amx_chunks(k);
  const int64_t floats = panels * kPanelColumns * ((k / amx_chunks(k) + kAmxDepth) / 2 + kAmxDepth / 2);
  return std::min(floats, kAmxWhole / 4);
}

}  // namespace

void ScratchNeed::need(Buffer buffer, int64_t elements, DType type) {
  size_t bytes = (static_cast<size_t>(elements) * size_of(type) + kPage - 1) / kPage * kPage;
  bytes_[buffer] = std::max(bytes_[buffer], bytes);
}

// x is packed, padded to whole tiles, kSuper values of k at a time; w one panel at a time.
void ScratchNeed::product(int64_t m, int64_t n, int64_t k, DType type, Operands operands) {
  if (type != DType::f32 || m <= 0 || n <= 0) return;  // the plain loops have one column panel on the heap
  const int64_t depth = std::min(k, kSuper), chunks = depth / (kChunk / 2) + 2;
  need(kPackedX, (m + kTileRows) * depth + (m / 6 + 1) * chunks * kTileSlack);
  if (m <= kFewRows) need(kPackedX, m * k);
  if (operands == Operands::as_stored) own_rows(m, k);
  if (operands == Operands::bf16_amx) {
    need(kPackedX, in_tiles(m, m <= kAmxRows ? k : depth, 0));
    if (k > 0) need(kPackedInside, block_in_tiles(m, k));
    if (k > 0 && m > kAmxBlockRows) need(kWholeW, whole_w(n, k));
  }
  panel(k, operands);
}

// Of f32 a task may pack a chunk of the rows that it multiplies for itself (own_x in cpu/gemm-inl.h).
void ScratchNeed::own_rows(int64_t m, int64_t k) {
  const int64_t chunks = (k + kChunk - 1) / kChunk, chunk = k > 0 ? (k / chunks + 8) / 8 * 8 : 0;
  const int64_t rows = std::min(m, chunk > 0 ? kOwnRows / chunk : 0) + kTileRows;
  need(kPackedInside, rows * chunk + (rows / 6 + 1) * kTileSlack);
}

// A panel of w is a chunk of k long; with AMX there are two, as pairs, and each has a step more.
void ScratchNeed::panel(int64_t k, Operands operands) {
  const int64_t step = step_of(operands), steps = (k + step - 1) / step + (operands == Operands::bf16_amx);
  need(kPackedW, std::min(steps * step, is_bf16(operands) ? kBf16Chunk : kChunk) * kPanelColumns);
}

void ScratchNeed::weight(const WeightView& w, int64_t rows, bool forward, DType type, Operands operands) {
  product(rows, forward ? w.out : w.in, forward ? w.in : w.out, type, operands);
  scales(w);
}

// Double-quantized scales are expanded for a call, in two parts at most, with a block more at either end.
void ScratchNeed::scales(const WeightView& w) {
  if (w.absmax_codes != nullptr) need(kAbsmax, w.out * w.in / w.block + 4);
}

void ScratchNeed::add(const Gemm& a) {
  product(a.m, a.n, a.k, a.type, a.operands);
}

void ScratchNeed::add(const QGemm& a) {
  weight(a.w, a.rows, a.layout == Layout::nt, a.type, a.operands);
  if (a.numerics == Numerics::decode) decode_class(a.w, a.rows);
}

// The decode class keeps x whole, in words of 16 bits with a scale for every 64, as many scales of w, and of
// a row by itself as much again (cpu/decode_rows-inl.h).
void ScratchNeed::decode_class(const WeightView& w, int64_t rows) {
  need(kPackedX, w.in / 64 * (33 * rows + 32) + kDecodeMore);
  if (w.format != Format::dense && w.block > 64) need(kSegmentScales, w.out * w.in / 64);
}

void ScratchNeed::add(const Dequantize& a) {
  scales(a.w);
}

namespace {

// What one side of a product takes, packed as tiles of rows (the thin side of cpu/thin-inl.h, and u of
// cpu/deltas-inl.h): `chunks` of the sum, each with some slack for every tile.
int64_t packed(int64_t rows, int64_t k, int64_t chunks, Operands operands) {
  const int64_t columns = (rows + kTileRows) * k + (rows / 6 + 2) * chunks * kTileSlack;
  // An adapter's rows may begin in the middle of a tile.
  return operands != Operands::bf16_amx ? columns
                                        : std::max(columns, in_tiles(rows + kAmxRows - 1, k, chunks));
}
int64_t chunks_of(int64_t k) {
  return k / (kChunk / 2) + 2;
}

// Sums of a panel of a thin product.
int64_t sums(int64_t rank, Operands operands) {
  return (rank + (operands == Operands::bf16_amx ? kAmxRows : kTileRows)) * kPanelColumns;
}

// Bits of the elements that dropout keeps, as floats.
int64_t bits(int64_t rows, int64_t cols) {
  return rows * ((cols + 63) / 64 * 2);
}

}  // namespace

// Of a task: sums of a thin product, the bits of its rows, its panel, and panels of all deltas of a term.
void ScratchNeed::panels(int64_t ranks, int64_t rank, int64_t dropped_columns, int64_t k, Operands operands) {
  need(kThinSums, sums(rank, operands) + bits(kPanelColumns, dropped_columns));
  need(kDeltaPanels, ranks * kPanelColumns);
  panel(k, operands);
}

// The plain composition drops kDropRows rows at a time.
void ScratchNeed::add(const Linear& a) {
  int64_t thin = 0;
  for (const LinearTerm& term : a.terms) {
    if (term.y != nullptr) weight(term.w, a.rows, true, a.type, a.operands);
    if (a.numerics == Numerics::decode) decode_class(term.w, a.rows);
    int64_t deltas = 0, ranks = 0;
    for (const LoraPart& part : term.lora) {
      const int64_t rows = part.hi - part.lo, in = term.w.in;
      const bool drops = part.dropout.p > 0;
      if (drops) need(kDropped, std::min(rows, kDropRows) * in, a.x_type);
      if (a.type != DType::f32) continue;
      // (all rows, where they are packed once for all products)
      product(a.operands == Operands::bf16_amx ? rows : std::min(rows, kFewRows), part.rank, in, a.type,
              a.operands);
      product(std::min(rows, kFewRows), term.w.out, part.rank, a.type, a.operands);
      thin += packed(part.rank, in, chunks_of(in), a.operands);
      deltas += packed(rows, part.rank, chunks_of(part.rank), a.operands);
      ranks += part.rank + step_of(a.operands);
      panels(ranks, part.rank, drops && part.kept == nullptr ? in : 0, in, a.operands);
    }
    if (term.y != nullptr) need(kDeltas, deltas);
  }
  need(kThin, thin);
}

namespace {

int64_t panels_of(int64_t columns) {
  return (columns + kPanelColumns - 1) / kPanelColumns;
}
// How many panels of an adapter's gradients one thread packs together, at most (thin_products() of
// cpu/thin-inl.h): the fewer threads there are, the more.
int64_t panels_together(const LinearBackward& a) {
  int64_t panels = 0;
  for (const LinearBackwardTerm& term : a.terms)
    panels += static_cast<int64_t>(term.lora.size()) * (panels_of(term.w.in) + panels_of(term.w.out));
  return std::clamp<int64_t>((panels + 3) / 4, 1, kPanelsTogether);
}

}  // namespace

void ScratchNeed::add(const LinearBackward& a) {
  const int64_t together = panels_together(a);
  int64_t longest = 0;
  const auto sequences = static_cast<int64_t>(a.sequences.size());
  for (size_t s = 0; s + 1 < a.sequences.size(); ++s)
    longest = std::max<int64_t>(longest, a.sequences[s + 1] - a.sequences[s]);
  int64_t low_rank = 0, kept = 0, of_du = 0, of_gradients = 0;
  for (const LinearBackwardTerm& term : a.terms) {
    const int64_t in = term.w.in, out = term.w.out;
    if (a.dx != nullptr) weight(term.w, a.rows, false, a.type, a.operands);
    if (a.dx != nullptr && a.mode == Write::accumulate) need(kSum, a.rows * in, a.type);
    int64_t deltas = 0, ranks = 0;
    for (const LoraPart& part : term.lora) {
      const int64_t rows = part.hi - part.lo;
      const bool drops = part.dropout.p > 0;
      need(kLowRank, rows * part.rank, a.type);
      if (a.operands == Operands::bf16_amx) product(rows, part.rank, out, a.type, a.operands);
      if (drops) need(kDropped, std::min(rows, longest) * in, a.x_type);
      if (drops && a.dx != nullptr) need(kDelta, std::min(rows, kDropRows) * in, a.type);
      if (a.type != DType::f32) continue;
      low_rank += rows * part.rank;
      if (drops && part.kept == nullptr) kept += bits(rows, in);
      of_du += packed(part.rank, out, chunks_of(out), a.operands);
      of_gradients += 2 * packed(part.rank, rows, chunks_of(rows) + 2 * sequences, a.operands);
      deltas += packed(rows, part.rank, chunks_of(part.rank), a.operands);
      ranks += part.rank + step_of(a.operands);
      panels(ranks, part.rank, 0, out, a.operands);
      const int64_t step = step_of(a.operands), count = std::min(together, panels_of(std::max(in, out)));
      need(kThinSums, count * sums(part.rank, a.operands));
      need(kPackedW,
           count * std::min((rows + step - 1) / step * step, is_bf16(a.operands) ? kBf16Chunk : kChunk) *
               kPanelColumns);
    }
    if (a.dx != nullptr) need(kDeltas, deltas);
  }
  need(kLowRank, low_rank);
  need(kKept, kept);
  need(kThin, std::max(of_du, of_gradients));
}

// Every task packs its own small products: a block of queries times keys or values, and keys times a block.
void ScratchNeed::add(const Attention& a) {
  if (a.type != DType::f32) return;
  const bool amx = a.operands == Operands::bf16_amx;
  for (const SequenceSpan& s : a.sequences) {
    // One query stands for all heads that share its keys.
    const int64_t queries = std::max(std::min(s.q_len, amx ? kAmxQueries : kQueries), a.heads / a.kv_heads);
    const int64_t depth = std::max(a.head_dim, std::min(s.k_len, kChunk));
    inside(queries, depth, a.operands);
    inside(s.k_len, queries, a.operands);
    panel(std::max(depth, queries), a.operands);
    if (amx && s.k_len > kAmxBlockRows) need(kPackedW, whole_w(a.head_dim, kAmxQueries));
    need(kScores, queries * (s.k_len + 2 * kLanes));
  }
}

// x of a product inside a task.
void ScratchNeed::inside(int64_t m, int64_t k, Operands operands) {
  need(kPackedInside, (m + kTileRows) * k + (m / 6 + 1) * chunks_of(k) * kTileSlack);
  if (operands == Operands::bf16_amx) need(kPackedInside, in_tiles(m, k, 0));
}

void ScratchNeed::add(const AttentionBackward& a) {
  add(a.forward);
  bytes_[kGradients] = std::max(bytes_[kGradients], bytes_[kScores]);
}

size_t ScratchNeed::bytes(int threads) const {
  size_t sum = 0;
  for (int i = 0; i < kBuffers; ++i) {
    const bool each = i == kPackedW || i == kPackedInside || i == kAbsmax || i == kSegmentScales ||
                      i == kScores || i == kGradients || i == kThinSums || i == kDeltaPanels;
    sum += bytes_[static_cast<size_t>(i)] * static_cast<size_t>(each ? std::max(1, threads) : 1);
  }
  return sum;
}

}  // namespace qlora
