#pragma once
// Ragged sequences on the device: what the kernels of attention share.

#include "core/base/error.h"
#include "kernels/args_attention.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/uploads.h"

namespace qlora::cuda {

// A sequence, and where its queries and keys stand among those of all sequences.
struct Sequence {
  int64_t q_row, q_len, k_row, k_len;
  int64_t first_query, first_key;
  int64_t first_tile, shared_tiles;  // of the array of shared tiles
};
static_assert(sizeof(Sequence) == kSequenceBytes);

struct Sequences {
  const Sequence* all = nullptr;
  const SharedTile* tiles = nullptr;
  int count = 0;
  int64_t queries = 0, keys = 0;  // in all
};

// Uploads them. Call Uploads::begin() before.
Sequences upload_sequences(Device&, std::span<const SequenceSpan>);

// The scalars of Attention, and the pointers as f32.
struct Heads {
  const float *q, *k, *v;
  float *o, *lse;
  int64_t heads, kv_heads, head_dim, window;
  float scale;
  bool rounds;        // operands are read as bf16
  float softcap;      // 0: none
  const float* bias;  // [heads, distances] or null
  int64_t distances;

  __device__ __forceinline__ float operand(float value) const {
    return rounds ? to_float(to_bf16(value)) : value;
  }
  __device__ __forceinline__ int64_t at(int64_t row, int64_t head) const {
    return (row * heads + head) * head_dim;
  }
  __device__ __forceinline__ int64_t at_kv(int64_t row, int64_t head) const {
    return (row * kv_heads + head) * head_dim;
  }
  // Whether scores are more than scale q·k.
  constexpr bool shapes() const { return softcap > 0 || bias != nullptr; }
  // Of a query and the key `distance` before it; 0 where there is no such pair.
  __device__ __forceinline__ float bias_of(int64_t head, int64_t distance) const {
    const bool there = static_cast<uint64_t>(distance) < static_cast<uint64_t>(distances);
    return bias != nullptr && there ? bias[head * distances + distance] : 0.0f;
  }
  // The keys that a query at `position` sees: [first, position].
  __device__ __forceinline__ int64_t first_key(int64_t position) const {
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
};
Heads heads_of(const Attention&);

// A score, and its slope: the derivative with respect to scale q·k.
struct Score {
  float value, slope;
};
__device__ inline Score score_of(const Heads& h, float product, int64_t head, int64_t distance) {
  Score s{h.scale * product, 1};
  if (h.softcap > 0) {
    const float t = tanhf(s.value / h.softcap);
    s = {h.softcap * t, 1.0f - t * t};
  }
  s.value += h.bias_of(head, distance);
  return s;
}

inline constexpr int64_t kMostHeadDim = 512;
// Throws Error(usage) for heads that no kernel takes.
void check_heads(const Attention&);

// The sequence that holds query (or key) number `index`.
__device__ inline const Sequence& sequence_of(const Sequences& s, int64_t index, bool keys) {
  int low = 0, high = s.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    const int64_t first = keys ? s.all[middle].first_key : s.all[middle].first_query;
    (first <= index ? low : high) = middle;
  }
  return s.all[low];
}

// Row `key` of a sequence's keys (side k) or values, of one key head.
__device__ inline const float* key_row(const Heads& h, const Sequences& all, const Sequence& s, int64_t key,
                                       int64_t head, bool values) {
  const int64_t tile = key / kKeyTile;
  if (tile < s.shared_tiles) {
    const SharedTile& t = all.tiles[s.first_tile + tile];
    return static_cast<const float*>(values ? t.v : t.k) + h.at_kv(key % kKeyTile, head);
  }
  return (values ? h.v : h.k) + h.at_kv(s.k_row + key - s.shared_tiles * kKeyTile, head);
}

}  // namespace qlora::cuda
