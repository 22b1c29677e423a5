// Attention on tensor cores, backward (flash.cuh): gradients of queries, a block 64 queries of a head; then
// of keys and values, a block 64 or 32 keys of a key head. Weights are computed again from the log of the sum
// of exponentials; no atomics, so every sum has one order.
//   p = exp(score - lse);  ds = p (dout · v - dout · o) scale, times the slope of a softcap
//   dq = sum bf16(ds) k;  dk = sum bf16(ds) q;  dv = sum bf16(p) dout

#include "kernels/cuda/flash.cuh"

namespace qlora::cuda {
namespace flash_parts {
namespace {

// Of the queries of all sequences, one after another: q and dout in bf16, [queries, heads, head_dim]; lse
// times log2 e, and dout · o, [heads, queries].
struct Rows {
  const bf16 *q, *dout;
  const float *lse, *delta;
};

// A warp a query and head.
__global__ void __launch_bounds__(kThreads)
    round_queries(Heads h, Sequences all, const float* dout, uint32_t* q16, uint32_t* dout16, float* lse,
                  float* delta) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (item >= all.queries * h.heads) return;
  const int64_t query = item / h.heads, head = item % h.heads;
  const Sequence& s = sequence_of(all, query, false);
  const int64_t row = s.q_row + query - s.first_query;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  double product = 0;
  for (int c = 2 * lane; c < h.head_dim; c += 64) {
    const int64_t at = h.at(row, head) + c, to = (item * h.head_dim + c) / 2;
    q16[to] = round_pair(h.q[at], h.q[at + 1]);
    dout16[to] = round_pair(dout[at], dout[at + 1]);
    product += static_cast<double>(dout[at]) * static_cast<double>(h.o[at]);
    product += static_cast<double>(dout[at + 1]) * static_cast<double>(h.o[at + 1]);
  }
  product = warp_sum(product);
  if (lane != 0) return;
  lse[head * all.queries + query] = h.lse[row * h.heads + head] * kLog2e;
  delta[head * all.queries + query] = static_cast<float>(product);
}

// ---- gradients of queries

template <int kDim_>
struct QuerySizes {
  static constexpr int kDim = kDim_, kRows = 16 * kWarps, kKeys = kDim == 256 ? 32 : 64;
  static_assert(kRows >= kFewestFlashRows);
};

template <class S>
struct QueryTiles {
  Tile<S::kRows, S::kDim> q, dout;
  Tile<S::kKeys, S::kDim> k, v;
};

// What a thread knows of its two rows.
struct RowNumbers {
  float lse[2], delta[2];
};

// p from the scores of 16 queries against keys [tile, tile + kKeys).
template <int kKeys>
__device__ __forceinline__ void weights_of_rows(float (&scores)[kKeys / 8][4], const Heads& h,
                                                const Queries& queries, const RowNumbers& rows, int tile,
                                                int lane) {
  const float scale = h.scale * kLog2e;
  const bool all_seen = tile + kKeys - 1 <= queries.position && tile >= h.first_key(queries.last);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int position = queries.position + lane / 4 + 8 * half;
    const int last = all_seen ? kKeys : position - tile,
              first = all_seen ? 0 : static_cast<int>(h.first_key(position)) - tile;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int key = 8 * n + lane % 4 * 2 + e;
        float& score = scores[n][2 * half + e];
        score = key < first || key > last ? 0.0f : exp2_fast(fmaf(score, scale, -rows.lse[half]));
      }
  }
}

// ds in place of p.
template <int kKeys>
__device__ __forceinline__ void slopes_of_rows(float (&p)[kKeys / 8][4], const float (&dp)[kKeys / 8][4],
                                               const RowNumbers& rows, float scale) {
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) p[n][e] = p[n][e] * (dp[n][e] - rows.delta[e / 2]) * scale;
}

// The same of scores with a softcap or a bias, from q·k.
template <int kKeys>
__device__ __forceinline__ void shaped_slopes_of_rows(float (&p)[kKeys / 8][4],
                                                      const float (&dp)[kKeys / 8][4], const Heads& h,
                                                      const Queries& queries, const RowNumbers& rows,
                                                      int64_t head, int tile, int lane) {
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int position = queries.position + lane / 4 + e / 2 * 8, key = tile + 8 * n + lane % 4 * 2 + e % 2;
      const Score s = shaped(h, p[n][e], head, position - key);
      const float weight = exp2_fast(fmaf(s.value, kLog2e, -rows.lse[e / 2]));
      const bool seen = key <= position && key >= h.first_key(position);
      p[n][e] = seen ? weight * (dp[n][e] - rows.delta[e / 2]) * h.scale * s.slope : 0.0f;
    }
}

template <class S, bool kShaped>
__global__ void __launch_bounds__(kThreads)
    of_queries(Heads h, Sequences all, const Work* work, Keys keys, Rows rows, float* dq) {
  auto& shared = shared_as<QueryTiles<S>>();
  const Sequence& s = all.all[work[blockIdx.x].sequence];
  const int64_t head = blockIdx.y, pitch = h.kv_heads * S::kDim, i = work[blockIdx.x].first;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Queries block = queries_of(h, s, i, S::kRows), queries = queries_of(h, s, i + 16 * warp, 16);
  const auto length = static_cast<int>(s.k_len);
  const int64_t from_rows = ((s.first_query + i) * h.heads + head) * S::kDim;
  start_rows(shared.q, rows.q + from_rows, h.heads * S::kDim, block.count);
  start_rows(shared.dout, rows.dout + from_rows, h.heads * S::kDim, block.count);
  RowNumbers mine{};
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    if (row >= queries.count) continue;
    const int64_t at = head * all.queries + s.first_query + i + 16 * warp + row;
    mine.lse[half] = rows.lse[at];
    mine.delta[half] = rows.delta[at];
  }
  int tile = block.first / S::kKeys * S::kKeys;
  const int64_t from = (s.first_key + tile) * pitch + head / (h.heads / h.kv_heads) * S::kDim;
  const bf16 *k = keys.k + from, *v = keys.v + from;
  float sums[1][S::kDim / 8][4] = {};
  for (; tile <= block.last; tile += S::kKeys, k += S::kKeys * pitch, v += S::kKeys * pitch) {
    const bool seen = queries.sees(tile, S::kKeys);
    float p[1][S::kKeys / 8][4] = {}, dp[1][S::kKeys / 8][4] = {};
    start_rows(shared.k, k, pitch, length - tile);
    commit_copies();
    start_rows(shared.v, v, pitch, length - tile);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    if (seen) {
      multiply_rows<1, kSteps<S::kDim>>(
          p, [&](int c, auto& a) { load_left(a[0], shared.q, 16 * warp, 16 * c, lane); }, shared.k, lane);
      if constexpr (!kShaped) weights_of_rows<S::kKeys>(p[0], h, queries, mine, tile, lane);
    }
    wait_copies<0>();
    __syncthreads();
    if (seen) {
      multiply_rows<1, kSteps<S::kDim>>(
          dp, [&](int c, auto& a) { load_left(a[0], shared.dout, 16 * warp, 16 * c, lane); }, shared.v, lane);
      if constexpr (kShaped)
        shaped_slopes_of_rows<S::kKeys>(p[0], dp[0], h, queries, mine, head, tile, lane);
      else
        slopes_of_rows<S::kKeys>(p[0], dp[0], mine, h.scale);
      uint32_t ds[1][S::kKeys / 16][4];
      round_left<S::kKeys>(ds[0], p[0]);
      add_weighted<1, S::kDim>(sums, ds, shared.k, 0, lane);
    }
    __syncthreads();
  }
  write_rows<S::kDim>(dq + h.at(queries.row, head), h.heads * S::kDim, queries.count, sums[0], {1, 1}, lane);
}

// ---- gradients of keys and values

constexpr int64_t kWidest = int64_t{1} << 30;  // of windows: as good as any that is wider

// A warp holds 16 keys, and kColumns of their gradients: kParts warps share the keys.
template <int kDim_>
struct KeySizes {
  static constexpr int kDim = kDim_, kParts = kDim == 256 ? 2 : 1, kColumns = kDim / kParts;
  static constexpr int kRows = 16 * kWarps / kParts, kQueries = kDim < 96 ? 64 : 32;
  static_assert(kRows >= kFewestFlashRows);
};

template <class S>
struct KeyTiles {
  Tile<S::kRows, S::kDim> k, v;
  Tile<S::kQueries, S::kDim> q, dout;
  float lse[S::kQueries], delta[S::kQueries];
};

// 16 keys of a warp from `key` on, against queries [tile, tile + kQueries) at positions from `position` on.
template <int kQueries>
struct KeysAndQueries {
  int key, position, count;  // of queries that there are
  int window;

  __device__ __forceinline__ bool sees(int key_at, int query) const {
    const int at = position + query;
    return query < count && key_at <= at && (window == 0 || key_at > at - window);
  }
  __device__ __forceinline__ bool any(int keys_end) const {
    return key < keys_end && key < position + count && (window == 0 || key + 15 > position - window);
  }
  __device__ __forceinline__ bool all() const {
    return count >= kQueries && key + 15 <= position &&
           (window == 0 || key > position + kQueries - 1 - window);
  }
};

// p, transposed, from the scores of 16 keys against the queries.
template <int kQueries>
__device__ __forceinline__ void weights_of_keys(float (&scores)[kQueries / 8][4],
                                                const KeysAndQueries<kQueries>& pairs, const float* lse,
                                                float scale, int lane) {
  const bool all = pairs.all();
#pragma unroll
  for (int n = 0; n < kQueries / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int query = 8 * n + lane % 4 * 2 + e % 2;
      const bool seen = all || pairs.sees(pairs.key + lane / 4 + e / 2 * 8, query);
      scores[n][e] = seen ? exp2_fast(fmaf(scores[n][e], scale, -lse[query])) : 0.0f;
    }
}

// ds in place of dp.
template <int kQueries>
__device__ __forceinline__ void slopes_of_keys(const float (&p)[kQueries / 8][4],
                                               float (&dp)[kQueries / 8][4], const float* delta, float scale,
                                               int lane) {
#pragma unroll
  for (int n = 0; n < kQueries / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) dp[n][e] = p[n][e] * (dp[n][e] - delta[8 * n + lane % 4 * 2 + e % 2]) * scale;
}

// Both of scores with a softcap or a bias, from q·k.
template <int kQueries>
__device__ __forceinline__ void shaped_slopes_of_keys(float (&p)[kQueries / 8][4],
                                                      float (&dp)[kQueries / 8][4], const Heads& h,
                                                      const KeysAndQueries<kQueries>& pairs, const float* lse,
                                                      const float* delta, int64_t head, int lane) {
  const bool all = pairs.all();
#pragma unroll
  for (int n = 0; n < kQueries / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int query = 8 * n + lane % 4 * 2 + e % 2, key = pairs.key + lane / 4 + e / 2 * 8;
      const bool seen = all || pairs.sees(key, query);
      const Score s = shaped(h, p[n][e], head, pairs.position + query - key);
      p[n][e] = seen ? exp2_fast(fmaf(s.value, kLog2e, -lse[query])) : 0.0f;
      dp[n][e] = p[n][e] * (dp[n][e] - delta[query]) * h.scale * s.slope;
    }
}

// Adds what the queries on their way to shared memory give to the warp's keys; dout arrives while scores are
// multiplied.
template <class S, bool kShaped>
__device__ __forceinline__ void add_queries(float (&dk)[1][S::kColumns / 8][4],
                                            float (&dv)[1][S::kColumns / 8][4], const KeyTiles<S>& shared,
                                            const Heads& h, const KeysAndQueries<S::kQueries>& pairs,
                                            bool seen, int row, int column, int64_t head, int lane) {
  float p[1][S::kQueries / 8][4] = {}, dp[1][S::kQueries / 8][4] = {};
  wait_copies<1>();
  __syncthreads();
  if (seen) {
    multiply_rows<1, kSteps<S::kDim>>(
        p, [&](int c, auto& a) { load_left(a[0], shared.k, row, 16 * c, lane); }, shared.q, lane);
    if constexpr (!kShaped) weights_of_keys<S::kQueries>(p[0], pairs, shared.lse, h.scale * kLog2e, lane);
  }
  wait_copies<0>();
  __syncthreads();
  if (seen) {
    multiply_rows<1, kSteps<S::kDim>>(
        dp, [&](int c, auto& a) { load_left(a[0], shared.v, row, 16 * c, lane); }, shared.dout, lane);
    if constexpr (kShaped)
      shaped_slopes_of_keys<S::kQueries>(p[0], dp[0], h, pairs, shared.lse, shared.delta, head, lane);
    else
      slopes_of_keys<S::kQueries>(p[0], dp[0], shared.delta, h.scale, lane);
    uint32_t weights[1][S::kQueries / 16][4], slopes[1][S::kQueries / 16][4];
    round_left<S::kQueries>(weights[0], p[0]);
    round_left<S::kQueries>(slopes[0], dp[0]);
    add_weighted<1, S::kColumns>(dv, weights, shared.dout, column, lane);
    add_weighted<1, S::kColumns>(dk, slopes, shared.q, column, lane);
  }
  __syncthreads();
}

// Starts copying queries [i, i + kQueries) of a head, and their dout in a group of its own.
template <class S>
__device__ __forceinline__ void start_queries(KeyTiles<S>& shared, const Heads& h, const Sequences& all,
                                              const Sequence& s, const Rows& rows, int i, int64_t head) {
  const int count = static_cast<int>(s.q_len) - i, t = static_cast<int>(threadIdx.x);
  const int64_t first = s.first_query + i, from = (first * h.heads + head) * S::kDim;
  start_rows(shared.q, rows.q + from, h.heads * S::kDim, count);
  commit_copies();
  start_rows(shared.dout, rows.dout + from, h.heads * S::kDim, count);
  commit_copies();
  if (t < S::kQueries) {
    shared.lse[t] = t < count ? rows.lse[head * all.queries + first + t] : 0.0f;
    shared.delta[t] = t < count ? rows.delta[head * all.queries + first + t] : 0.0f;
  }
}

template <class S, bool kShaped>
__global__ void __launch_bounds__(kThreads)
    of_keys(Heads h, Sequences all, const Work* work, Keys keys, Rows rows, float* dk_out, float* dv_out) {
  auto& shared = shared_as<KeyTiles<S>>();
  const Sequence& s = all.all[work[blockIdx.x].sequence];
  const int64_t kv_head = blockIdx.y, pitch = h.kv_heads * S::kDim, group = h.heads / h.kv_heads;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const auto begin = static_cast<int>(work[blockIdx.x].first), length = static_cast<int>(s.k_len),
             queries = static_cast<int>(s.q_len), window = static_cast<int>(min(h.window, kWidest)),
             before = length - queries;
  const int row = 16 * (warp / S::kParts), column = S::kColumns * (warp % S::kParts), key = begin + row;
  // The queries that see any of the block's keys.
  const int first = max(0, begin - before) / S::kQueries * S::kQueries;
  const int last = window == 0 ? queries : min(queries, min(begin + S::kRows, length) - 1 - before + window);
  float dk[1][S::kColumns / 8][4] = {}, dv[1][S::kColumns / 8][4] = {};
  if (first < last) {
    const int64_t from = (s.first_key + begin) * pitch + kv_head * S::kDim;
    start_rows(shared.k, keys.k + from, pitch, length - begin);
    start_rows(shared.v, keys.v + from, pitch, length - begin);
  }
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int i = first; i < last; i += S::kQueries) {
      start_queries(shared, h, all, s, rows, i, head);
      const KeysAndQueries<S::kQueries> pairs{key, before + i, min(S::kQueries, queries - i), window};
      add_queries<S, kShaped>(dk, dv, shared, h, pairs, pairs.any(length), row, column, head, lane);
    }
  const int64_t to = h.at_kv(s.k_row + key, kv_head) + column;
  write_rows<S::kColumns>(dk_out + to, pitch, length - key, dk[0], {1, 1}, lane);
  write_rows<S::kColumns>(dv_out + to, pitch, length - key, dv[0], {1, 1}, lane);
}

Rows round_queries(Device& d, const Heads& h, const Sequences& all, const float* dout) {
  const auto heads = static_cast<size_t>(all.queries * h.heads),
             pairs = heads * static_cast<size_t>(h.head_dim) / 2;
  auto* q = d.room<uint32_t>(Room::queries, 2 * pairs);
  auto* rounded = q + pairs;
  auto* lse = d.room<float>(Room::partials, 2 * heads);
  d.stream.launch(round_queries, dim3(blocks_for(static_cast<int64_t>(heads), kWarps)), dim3(kThreads), 0, h,
                  all, dout, q, rounded, lse, lse + heads);
  return {reinterpret_cast<const bf16*>(q), reinterpret_cast<const bf16*>(rounded), lse, lse + heads};
}

}  // namespace
}  // namespace flash_parts

void flash_backward(Device& d, const AttentionBackward& b) {
  using namespace flash_parts;
  const Attention& a = b.forward;
  d.uploads.begin();
  const Sequences all = upload_sequences(d, a.sequences);
  if (all.keys == 0) return;
  const Heads h = heads_of(a);
  const Keys keys = gather_keys(d, h, all);
  const Rows rows = all.queries > 0 ? round_queries(d, h, all, static_cast<const float*>(b.dout)) : Rows{};
  by_head_dim(a.head_dim, [&](auto dim) {
    using Q = QuerySizes<dim()>;
    using K = KeySizes<dim()>;
    if (all.queries > 0) {
      const WorkList work = upload_work(d, a.sequences, false, Q::kRows);
      d.stream.launch(h.shapes() ? of_queries<Q, true> : of_queries<Q, false>,
                      dim3(work.count, static_cast<unsigned>(a.heads)), dim3(kThreads), sizeof(QueryTiles<Q>),
                      h, all, work.all, keys, rows, static_cast<float*>(b.dq));
    }
    const WorkList work = upload_work(d, a.sequences, true, K::kRows);
    d.stream.launch(h.shapes() ? of_keys<K, true> : of_keys<K, false>,
                    dim3(work.count, static_cast<unsigned>(a.kv_heads)), dim3(kThreads), sizeof(KeyTiles<K>),
                    h, all, work.all, keys, rows, static_cast<float*>(b.dk), static_cast<float*>(b.dv));
  });
}

}  // namespace qlora::cuda
