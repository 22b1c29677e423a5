#include "kernels/device_scratch.h"

#include "kernels/cuda/flash_sizes.h"
#include "kernels/cuda/many_rows.h"
#include "kernels/cuda/uploads.h"

namespace qlora {
namespace {

constexpr int64_t kFloat = 4, kDouble = 8, kNarrowed = 2;
// An upload, rounded up; a small product with its range of k.
constexpr int64_t kRounding = cuda::kUploadAlignment, kRange = cuda::kRangeBytes,
                  kItem = cuda::kSmallProductBytes + cuda::kRangeBytes, kSequence = cuda::kSequenceBytes,
                  kFlashWork = cuda::kFlashWorkBytes, kStretchWork = cuda::kStretchBytes;

struct Rows {
  int64_t queries = 0, keys = 0;
};
Rows rows_of(const Attention& a) {
  Rows rows;
  for (const SequenceSpan& s : a.sequences) {
    rows.queries += s.q_len;
    rows.keys += s.k_len;
  }
  return rows;
}

template <class Tensors>
int64_t chunks_of(const Tensors& tensors) {
  int64_t chunks = 0;
  for (const auto& t : tensors) chunks += (t.n + cuda::kStretch - 1) / cuda::kStretch;
  return chunks;
}

}  // namespace

void DeviceScratchNeed::need(Buffer buffer, int64_t bytes) {
  bytes_[buffer] = std::max(bytes_[buffer], static_cast<size_t>(bytes));
}

void DeviceScratchNeed::uploads(int64_t bytes) {
  uploads_ = std::max(uploads_, static_cast<size_t>(bytes));
}

void DeviceScratchNeed::add(const Linear& a) {
  int64_t parts = 0;
  for (const LinearTerm& term : a.terms) parts += static_cast<int64_t>(term.lora.size());
  uploads(a.rows * kDouble + parts * 2 * kItem + 5 * kRounding);
  if (!cuda::many_rows(a) || !options_.blas) return;
  const cuda::ForwardSizes sizes = cuda::sizes_of(a, options_.kept_bytes);
  need(kNarrow, a.rows * sizes.pitch * kNarrowed);
  need(kDropped, sizes.dropped * kNarrowed);
  need(kDecoded, sizes.decoded * kNarrowed);
  need(kAdapter, sizes.adapter * kNarrowed);
  need(kWorkspace, cuda::kBlasWorkspace);
  if (sizes.stack.rows > 0) {
    size_t& bytes = stacks_[a.terms[0].w.data];
    bytes = std::max(bytes, sizes.stack.bytes());
  }
  if (sizes.stack.stays) need(kKept, static_cast<int64_t>(options_.kept_bytes));
}

size_t DeviceScratchNeed::decoded() const {
  size_t sum = 0;
  for (const auto& [data, bytes] : stacks_) sum += bytes;
  return sum;
}

void DeviceScratchNeed::add(const LinearBackward& a) {
  const auto sequences = static_cast<int64_t>(a.sequences.size());
  int64_t low_rank = 0, parts = 0;
  for (const LinearBackwardTerm& term : a.terms)
    for (const LoraPart& part : term.lora) {
      low_rank += (part.hi - part.lo) * part.rank;
      ++parts;
    }
  need(kLowRank, low_rank * kFloat);
  const bool by_blas = cuda::many_rows(a) && options_.blas;
  if (a.dx != nullptr && a.mode == Write::accumulate && !a.terms.empty() &&
      !(by_blas && cuda::joins_backward(a)))
    need(kSum, a.rows * a.terms[0].w.in * kFloat);
  uploads(a.rows * kDouble + parts * (4 * kItem + 2 * sequences * kRange) +
          (5 + 2 * static_cast<int64_t>(a.terms.size())) * kRounding);
  if (!by_blas) return;
  const cuda::BackwardSizes sizes = cuda::sizes_of(a, options_.kept_bytes);
  need(kNarrow, a.rows * sizes.pitch * kNarrowed);
  need(kDecoded, sizes.decoded * kNarrowed);
  need(kAdapter, sizes.adapter * kNarrowed);
  need(kDropped, sizes.x * kNarrowed);
  need(kLow, sizes.low * kNarrowed);
  need(kWorkspace, cuda::kBlasWorkspace);
  if (sizes.stack.stays) need(kKept, static_cast<int64_t>(options_.kept_bytes));
}

void DeviceScratchNeed::sequences(const Attention& a) {
  int64_t bytes = 4 * kRounding;
  for (const SequenceSpan& s : a.sequences)
    bytes += kSequence + s.shared_tiles * static_cast<int64_t>(sizeof(SharedTile)) +
             ((s.q_len + s.k_len) / cuda::kFewestFlashRows + 2) * kFlashWork;
  uploads(bytes);
}

void DeviceScratchNeed::keys(const Attention& a) {
  if (cuda::flash_takes(a)) need(kKeys, rows_of(a).keys * a.kv_heads * a.head_dim * kFloat);
}

void DeviceScratchNeed::add(const Attention& a) {
  sequences(a);
  if (cuda::rounds_keys_first(a)) keys(a);
}

// Keys, queries and gradients of the output are rounded once for all that read them; and every row of a head
// has a sum or two.
void DeviceScratchNeed::add(const AttentionBackward& b) {
  const Attention& a = b.forward;
  sequences(a);
  keys(a);
  const int64_t heads = rows_of(a).queries * a.heads;
  if (cuda::flash_takes(a)) need(kQueries, heads * a.head_dim * kFloat);
  need(kPartials, heads * kFloat * (cuda::flash_takes(a) ? 2 : 1));
}

void DeviceScratchNeed::add(const RopeTable& a) {
  uploads((a.rows + a.half) * kFloat + 2 * kRounding);
}

void DeviceScratchNeed::add(const GatherRows& a) {
  uploads(a.rows * kFloat + kRounding);
}

void DeviceScratchNeed::add(const ScatterRows& a) {
  uploads(a.rows * kFloat + kRounding);
}

void DeviceScratchNeed::add(const CrossEntropy& a) {
  uploads(2 * a.rows * kFloat + 2 * kRounding);
}

void DeviceScratchNeed::add(const SumSquares& a) {
  const int64_t chunks = chunks_of(a.tensors);
  need(kPartials, chunks * kDouble);
  uploads(static_cast<int64_t>(a.tensors.size()) * static_cast<int64_t>(sizeof(TensorRef)) +
          chunks * kStretchWork + 2 * kRounding);
}

// A slab begins and ends within tensors: two pieces and two blocks more than they have.
void DeviceScratchNeed::add(const AdamW& a) {
  if (a.tensors.empty()) return;
  uploads((static_cast<int64_t>(a.tensors.size()) + 2) * static_cast<int64_t>(sizeof(AdamTensor)) +
          (chunks_of(a.tensors) + 2) * kStretchWork + 2 * kRounding);
  if (a.slab_bytes > 0) need(kSlabs, 4 * slab_elements(a) * kFloat);
}

void DeviceScratchNeed::add(const AdamW8& a) {
  if (a.tensors.empty()) return;
  uploads(static_cast<int64_t>(a.tensors.size() * sizeof(Adam8Tensor)) + chunks_of(a.tensors) * kStretchWork +
          2 * 256 * kFloat + 4 * kRounding);
}

void DeviceScratchNeed::add(const Sample& a) {
  uploads(static_cast<int64_t>(a.choices.size_bytes() + a.seen.size_bytes()) + 2 * kRounding);
}

size_t DeviceScratchNeed::bytes() const {
  size_t sum = 0;
  for (int i = 0; i < kBuffers; ++i)
    if (i != kSlabs) sum += bytes_[static_cast<size_t>(i)];
  // A block that has become too small stays until the next call, beside one of twice its size.
  return uploads_ == 0 ? sum : sum + 2 * std::max(cuda::kFirstUploads, 2 * uploads_);
}

}  // namespace qlora
