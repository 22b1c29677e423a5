// Attention over ragged sequences, forward: a block a query and head. Keys come in tiles of 128, a thread a
// key, with a running largest score and sum (online softmax); then a thread a column adds the values. Tiles
// are counted from key 0 of the sequence, so bits do not depend on what shares the batch, nor on where keys
// lie.

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/sequences.cuh"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kColumns = 4;  // of a thread: head_dim is at most 512

struct Tile {
  float weights[kThreads];
  float partials[kMostWarps];
};

__global__ void __launch_bounds__(kThreads) forward(Heads h, Sequences all) {
  auto& shared = shared_as<Tile>();
  const int64_t query = blockIdx.x, head = blockIdx.y, kv_head = head / (h.heads / h.kv_heads);
  const Sequence& s = sequence_of(all, query, false);
  const int64_t i = query - s.first_query, position = s.k_len - s.q_len + i, first = h.first_key(position);
  const float* q = h.q + h.at(s.q_row + i, head);
  float sums[kColumns] = {}, largest = -INFINITY, total = 0;
  for (int64_t tile = first / kThreads * kThreads; tile <= position; tile += kThreads) {
    const int64_t key = tile + threadIdx.x;
    const bool seen = key >= first && key <= position;
    float score = -INFINITY;
    if (seen) {
      const float* k = key_row(h, all, s, key, kv_head, false);
      float dot = 0;
      for (int64_t c = 0; c < h.head_dim; ++c) dot = fmaf(h.operand(q[c]), h.operand(k[c]), dot);
      score = h.shapes() ? score_of(h, dot, head, position - key).value : h.scale * dot;
    }
    const float before = largest;
    largest = fmaxf(largest, block_max(score, shared.partials));
    const float shrink = before == -INFINITY ? 0.0f : expf(before - largest);
    const float weight = seen ? expf(score - largest) : 0.0f;
    total = total * shrink + block_sum(weight, shared.partials);
    shared.weights[threadIdx.x] = h.operand(weight);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kColumns; ++j) sums[j] *= shrink;
    for (int64_t key_seen = tile < first ? first : tile; key_seen <= position && key_seen < tile + kThreads;
         ++key_seen) {
      const float* v = key_row(h, all, s, key_seen, kv_head, true) + threadIdx.x;
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
        if (threadIdx.x + int64_t{j} * kThreads < h.head_dim)
          sums[j] = fmaf(shared.weights[key_seen - tile], h.operand(v[j * kThreads]), sums[j]);
    }
    __syncthreads();
  }
  float* o = h.o + h.at(s.q_row + i, head);
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    const int64_t c = threadIdx.x + int64_t{j} * kThreads;
    if (c < h.head_dim) o[c] = sums[j] / total;
  }
  if (h.lse != nullptr && threadIdx.x == 0) h.lse[(s.q_row + i) * h.heads + head] = largest + logf(total);
}

}  // namespace

Sequences upload_sequences(Device& d, std::span<const SequenceSpan> spans) {
  std::vector<Sequence> all;
  std::vector<SharedTile> tiles;
  Sequences s;
  for (const SequenceSpan& span : spans) {
    all.push_back({span.q_row, span.q_len, span.k_row, span.k_len, s.queries, s.keys,
                   static_cast<int64_t>(tiles.size()), span.shared_tiles});
    tiles.insert(tiles.end(), span.shared, span.shared + span.shared_tiles);
    s.queries += span.q_len;
    s.keys += span.k_len;
  }
  s.count = static_cast<int>(all.size());
  s.all = d.uploads.put(d.stream, all.data(), all.size());
  s.tiles = d.uploads.put(d.stream, tiles.data(), tiles.size());
  return s;
}

void check_heads(const Attention& a) {
  if (a.head_dim > kMostHeadDim)
    throw Error(ErrorKind::usage, "attention on CUDA: heads of " + std::to_string(a.head_dim) + ", at most " +
                                      std::to_string(kMostHeadDim));
}

Heads heads_of(const Attention& a) {
  return {static_cast<const float*>(a.q),
          static_cast<const float*>(a.k),
          static_cast<const float*>(a.v),
          static_cast<float*>(a.o),
          static_cast<float*>(a.lse),
          a.heads,
          a.kv_heads,
          a.head_dim,
          a.window,
          static_cast<float>(a.scale),
          is_bf16(a.operands),
          static_cast<float>(a.softcap),
          static_cast<const float*>(a.bias),
          a.distances};
}

void attention(Device& d, const Attention& a) {
  check_heads(a);
  if (flash_takes(a)) return flash(d, a);
  d.uploads.begin();
  const Sequences all = upload_sequences(d, a.sequences);
  if (all.queries == 0) return;
  d.stream.launch(forward, dim3(static_cast<unsigned>(all.queries), static_cast<unsigned>(a.heads)),
                  dim3(kThreads), sizeof(Tile), heads_of(a), all);
}

}  // namespace qlora::cuda
