// Attention on tensor cores, forward (flash.cuh).

#include "kernels/cuda/flash.cuh"

#include <vector>

namespace qlora::cuda {
namespace flash_parts {
namespace {

// k16[key number] = bf16(k[row of the key]), and the same of values; a thread two neighbours of one head.
__global__ void __launch_bounds__(kThreads) round_keys(Heads h, Sequences all, uint32_t* k16, uint32_t* v16) {
  const int64_t width = h.kv_heads * h.head_dim / 2;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= all.keys * width) return;
  const int64_t number = index / width, column = index % width * 2;
  const Sequence& s = sequence_of(all, number, true);
  const float* k = key_row(h, all, s, number - s.first_key, 0, false) + column;
  const float* v = key_row(h, all, s, number - s.first_key, 0, true) + column;
  k16[index] = round_pair(k[0], k[1]);
  v16[index] = round_pair(v[0], v[1]);
}

// 16 kTall queries a warp, kKeys keys at a time. kAside: registers do not hold the queries too.
template <int kDim_, int kTall_, int kKeys_, bool kAside_>
struct Sizes {
  static constexpr int kDim = kDim_, kTall = kTall_, kKeys = kKeys_, kRows = 16 * kTall * kWarps;
  static constexpr bool kAside = kAside_;
  static_assert(kRows >= kFewestFlashRows);
};
template <int kDim>
using SizesOf = Sizes<kDim, kDim == 64 ? 2 : 1, kDim == 256 ? 32 : 64, kDim == 256>;

template <class S>
struct Shared {
  Tile<S::kKeys, S::kDim> k, v;
  uint4 q[S::kAside ? S::kDim / 16 * kThreads : 1];  // every thread's share
};

// Columns [16 k, 16 k + 16) of 16 queries of one head, straight from memory; zeros where there are no more.
__device__ __forceinline__ void load_queries(uint32_t (&left)[4], const float* q, int64_t pitch, int count,
                                             int k, bool in_pairs, int lane) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i % 2 * 8;
    const float* at = q + row * pitch + 16 * k + i / 2 * 8 + lane % 4 * 2;
    float2 pair = make_float2(0, 0);
    if (row < count) pair = in_pairs ? *reinterpret_cast<const float2*>(at) : make_float2(at[0], at[1]);
    left[i] = round_pair(pair.x, pair.y);
  }
}

// The warp's queries as the left side of products: in registers, or the thread's share in shared memory.
template <class S>
class Left {
 public:
  __device__ __forceinline__ Left(Shared<S>& shared, const Heads& h, const Queries& queries, int64_t head,
                                  int lane)
      : q_(shared.q + threadIdx.x) {
    const bool in_pairs = reinterpret_cast<uintptr_t>(h.q) % sizeof(float2) == 0;
    const int64_t pitch = h.heads * S::kDim;
    const float* q = h.q + h.at(queries.row, head);
#pragma unroll
    for (int k = 0; k < S::kDim / 16; ++k)
#pragma unroll
      for (int r = 0; r < S::kTall; ++r) {
        uint32_t a[4];
        load_queries(a, q + 16 * r * pitch, pitch, queries.count - 16 * r, k, in_pairs, lane);
        if constexpr (S::kAside) {
          q_[k * kThreads] = make_uint4(a[0], a[1], a[2], a[3]);
        } else {
#pragma unroll
          for (int i = 0; i < 4; ++i) held_[k][r][i] = a[i];
        }
      }
  }
  __device__ __forceinline__ void operator()(int k, uint32_t (&a)[S::kTall][4]) const {
    if constexpr (S::kAside) {
      const uint4 q = q_[k * kThreads];
      a[0][0] = q.x, a[0][1] = q.y, a[0][2] = q.z, a[0][3] = q.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4 * S::kTall; ++i) a[i / 4][i % 4] = held_[k][i / 4][i % 4];
    }
  }

 private:
  static_assert(!S::kAside || S::kTall == 1);
  uint4* q_;
  uint32_t held_[S::kAside ? 1 : S::kDim / 16][S::kTall][4];
};

// q·k become scores, where these are more than a multiple of it.
template <class S>
__device__ __forceinline__ void shape(float (&scores)[S::kTall][S::kKeys / 8][4], const Heads& h,
                                      const Queries& queries, int64_t head, int tile, int lane) {
#pragma unroll
  for (int r = 0; r < S::kTall; ++r)
#pragma unroll
    for (int n = 0; n < S::kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int position = queries.position + 16 * r + lane / 4 + e / 2 * 8;
        const int key = tile + 8 * n + lane % 4 * 2 + e % 2;
        scores[r][n][e] = shaped(h, scores[r][n][e], head, position - key).value;
      }
}

// Scores of hidden pairs become -inf, where the tile has any.
template <class S>
__device__ __forceinline__ void mask(float (&scores)[S::kTall][S::kKeys / 8][4], const Heads& h,
                                     const Queries& queries, int tile, int lane) {
  if (tile + S::kKeys - 1 <= queries.position && tile >= h.first_key(queries.last)) return;
#pragma unroll
  for (int r = 0; r < S::kTall; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int position = queries.position + 16 * r + lane / 4 + 8 * half;
      const int last = position - tile, first = static_cast<int>(h.first_key(position)) - tile;
#pragma unroll
      for (int n = 0; n < S::kKeys / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int key = 8 * n + lane % 4 * 2 + e;
          if (key < first || key > last) scores[r][n][2 * half + e] = -INFINITY;
        }
    }
}

__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 1));
  return fmaxf(value, __shfl_xor_sync(kAllLanes, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 1);
  return value + __shfl_xor_sync(kAllLanes, value, 2);
}

// One row's running numbers: the largest score so far times scale · log2 e, and this thread's part of the sum
// of weights 2^(score - largest).
struct Running {
  float largest = -INFINITY, total = 0;
};

// Scores become weights; returns by how much what was summed before shrinks.
template <int kKeys>
__device__ __forceinline__ float weigh(Running& row, float (&scores)[kKeys / 8][4], int half, float scale) {
  float most = -INFINITY;
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
  const float before = row.largest;
  row.largest = fmaxf(before, quad_max(most) * scale);
  const float base = row.largest == -INFINITY ? 0.0f : row.largest;  // no key seen yet
  const float shrink = exp2_fast(before - base);
  float sum = 0;
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& score = scores[n][2 * half + e];
      score = exp2_fast(fmaf(score, scale, -base));
      sum += score;
    }
  row.total = fmaf(row.total, shrink, sum);
  return shrink;
}

template <class S>
__device__ __forceinline__ void add_tile(float (&sums)[S::kTall][S::kDim / 8][4],
                                         Running (&rows)[S::kTall][2],
                                         float (&scores)[S::kTall][S::kKeys / 8][4],
                                         const Tile<S::kKeys, S::kDim>& v, float scale, int lane) {
  uint32_t weights[S::kTall][S::kKeys / 16][4];
#pragma unroll
  for (int r = 0; r < S::kTall; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float shrink = weigh<S::kKeys>(rows[r][half], scores[r], half, scale);
#pragma unroll
      for (int n = 0; n < S::kDim / 8; ++n) {
        sums[r][n][2 * half] *= shrink;
        sums[r][n][2 * half + 1] *= shrink;
      }
    }
    round_left<S::kKeys>(weights[r], scores[r]);
  }
  add_weighted<S::kTall, S::kDim>(sums, weights, v, 0, lane);
}

// o = sums / total;  lse = ln 2 (largest + log2 total)
template <class S>
__device__ __forceinline__ void finish(const Heads& h, const Queries& queries, int64_t head,
                                       const float (&sums)[S::kTall][S::kDim / 8][4],
                                       const Running (&rows)[S::kTall][2], int lane) {
#pragma unroll
  for (int r = 0; r < S::kTall; ++r) {
    float factors[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = quad_sum(rows[r][half].total);
      factors[half] = 1 / total;
      const int row = 16 * r + lane / 4 + 8 * half;
      if (h.lse != nullptr && lane % 4 == 0 && row < queries.count)
        h.lse[(queries.row + row) * h.heads + head] = fmaf(rows[r][half].largest, kLn2, logf(total));
    }
    write_rows<S::kDim>(h.o + h.at(queries.row + 16 * r, head), h.heads * h.head_dim, queries.count - 16 * r,
                        sums[r], factors, lane);
  }
}

// Tiles of keys and values that were rounded before. They arrive while others are computed with.
template <int kDim>
class Copied {
 public:
  __device__ __forceinline__ Copied(const Heads& h, const Sequences&, const Sequence& s, int64_t head,
                                    const Keys& keys)
      : pitch_(h.kv_heads * kDim), length_(static_cast<int>(s.k_len)) {
    const int64_t from = s.first_key * pitch_ + head * kDim;
    k_ = keys.k + from;
    v_ = keys.v + from;
  }
  template <int kRows>
  __device__ __forceinline__ void start(Tile<kRows, kDim>& tile, int first, bool values) const {
    start_rows(tile, (values ? v_ : k_) + first * pitch_, pitch_, length_ - first);
    commit_copies();
  }

 private:
  const bf16 *k_, *v_;
  int64_t pitch_;
  int length_;
};

// The same, rounded as they are read: for so few queries that each would be read about as often as rounded.
template <int kDim>
class AsRead {
 public:
  __device__ __forceinline__ AsRead(const Heads& h, const Sequences& all, const Sequence& s, int64_t head,
                                    const Keys&)
      : h_(h), all_(all), s_(s), head_(head) {}
  // A tile lies within one piece of shared keys, or beyond them.
  template <int kRows>
  __device__ __forceinline__ void start(Tile<kRows, kDim>& tile, int first, bool values) const {
    static_assert(kKeyTile % kRows == 0);
    round_rows(tile, key_row(h_, all_, s_, first, head_, values), h_.kv_heads * kDim,
               static_cast<int>(s_.k_len) - first);
  }

 private:
  const Heads& h_;
  const Sequences& all_;
  const Sequence& s_;
  int64_t head_;
};

// For every tile of keys: s = q kᵀ (with a softcap or a bias: the score, and scale is 1 below);  m' = max(m,
// scale s);  p = exp(scale s - m');
//   total = total exp(m - m') + sum p;  o = o exp(m - m') + bf16(p) v;  at the end o / total.
// A block is S::kRows queries of one head. Values arrive while scores are multiplied, the next keys while
// weights are. kShaped: scores have a softcap or a bias.
template <class S, class Source, bool kShaped>
__global__ void __launch_bounds__(kThreads) forward(Heads h, Sequences all, const Work* work, Keys keys) {
  auto& shared = shared_as<Shared<S>>();
  const Sequence& s = all.all[work[blockIdx.x].sequence];
  const int64_t head = blockIdx.y, i = work[blockIdx.x].first;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Queries block = queries_of(h, s, i, S::kRows);
  const Queries queries = queries_of(h, s, i + 16 * S::kTall * warp, 16 * S::kTall);
  const Source source(h, all, s, head / (h.heads / h.kv_heads), keys);
  int tile = block.first / S::kKeys * S::kKeys;
  source.start(shared.k, tile, false);
  const Left<S> left(shared, h, queries, head, lane);
  const float scale = (kShaped ? 1.0f : h.scale) * kLog2e;
  float sums[S::kTall][S::kDim / 8][4] = {};
  Running rows[S::kTall][2];
  for (; tile <= block.last; tile += S::kKeys) {
    const bool seen = queries.sees(tile, S::kKeys);
    float scores[S::kTall][S::kKeys / 8][4] = {};
    wait_copies<0>();
    __syncthreads();
    source.start(shared.v, tile, true);
    if (seen) {
      multiply_rows<S::kTall, S::kAside ? kSteps<S::kDim> : S::kDim / 16>(scores, left, shared.k, lane);
      if constexpr (kShaped) shape<S>(scores, h, queries, head, tile, lane);
      mask<S>(scores, h, queries, tile, lane);
    }
    wait_copies<0>();
    __syncthreads();
    if (tile + S::kKeys <= block.last) source.start(shared.k, tile + S::kKeys, false);
    if (seen) add_tile<S>(sums, rows, scores, shared.v, scale, lane);
  }
  if (queries.count > 0) finish<S>(h, queries, head, sums, rows, lane);
}

}  // namespace

WorkList upload_work(Device& d, std::span<const SequenceSpan> sequences, bool keys, int rows) {
  std::vector<Work> all;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const int64_t length = keys ? sequences[s].k_len : sequences[s].q_len;
    const int64_t blocks = (length + rows - 1) / rows;
    // Late queries see many keys, early keys are seen by many queries.
    for (int64_t b = 0; b < blocks; ++b)
      all.push_back({static_cast<int64_t>(s), (keys ? b : blocks - 1 - b) * rows});
  }
  return {d.uploads.put(d.stream, all.data(), all.size()), static_cast<unsigned>(all.size())};
}

Keys gather_keys(Device& d, const Heads& h, const Sequences& all) {
  const int64_t pairs = all.keys * h.kv_heads * h.head_dim / 2;
  auto* k = d.room<uint32_t>(Room::keys, 2 * static_cast<size_t>(pairs));
  auto* v = k + pairs;
  d.stream.launch(round_keys, dim3(blocks_for(pairs, kThreads)), dim3(kThreads), 0, h, all, k, v);
  return {reinterpret_cast<const bf16*>(k), reinterpret_cast<const bf16*>(v)};
}

}  // namespace flash_parts

void flash(Device& d, const Attention& a) {
  using namespace flash_parts;
  d.uploads.begin();
  const Sequences all = upload_sequences(d, a.sequences);
  if (all.queries == 0) return;
  const Heads h = heads_of(a);
  const bool first = rounds_keys_first(a);
  const Keys keys = first ? gather_keys(d, h, all) : Keys{};
  by_head_dim(a.head_dim, [&](auto dim) {
    using S = SizesOf<dim()>;
    const WorkList work = upload_work(d, a.sequences, false, S::kRows);
    using Before = Copied<S::kDim>;
    using Now = AsRead<S::kDim>;
    auto* kernel = h.shapes() ? (first ? forward<S, Before, true> : forward<S, Now, true>)
                              : (first ? forward<S, Before, false> : forward<S, Now, false>);
    d.stream.launch(kernel, dim3(work.count, static_cast<unsigned>(a.heads)), dim3(kThreads),
                    sizeof(Shared<S>), h, all, work.all, keys);
  });
}

}  // namespace qlora::cuda
