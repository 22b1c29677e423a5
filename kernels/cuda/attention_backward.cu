// Attention, backward: gradients of queries, a block a query and head; then of keys and values, a block a key
// and key head. Weights are computed again from the log of the sum of exponentials; no atomics, so every sum
// has one order.
//   p = exp(score - lse);  ds = p (dout · v - dout · o) scale, times the slope of a softcap
//   dq = sum ds k;  dk = sum ds q;  dv = sum p dout

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/sequences.cuh"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kColumns = 4;

struct Gradients {
  const float* dout;
  float *dq, *dk, *dv;
  float* delta;  // [queries, heads]: dout · o
};

struct Tile {
  float p[kThreads], ds[kThreads];
  double partials[kMostWarps];
};

struct Pair {
  float p, ds;
};

__device__ Pair pair_of(const Heads& h, const Gradients& g, int64_t row, int64_t head, int64_t key_at,
                        int64_t distance, float delta) {
  const float *q = h.q + h.at(row, head), *dout = g.dout + h.at(row, head), *k = h.k + key_at,
              *v = h.v + key_at;
  float score = 0, dp = 0;
  for (int64_t c = 0; c < h.head_dim; ++c) {
    score = fmaf(h.operand(q[c]), h.operand(k[c]), score);
    dp = fmaf(h.operand(dout[c]), h.operand(v[c]), dp);
  }
  const float lse = h.lse[row * h.heads + head];
  if (h.shapes()) {
    const Score s = score_of(h, score, head, distance);
    const float p = expf(s.value - lse);
    return {p, p * (dp - delta) * h.scale * s.slope};
  }
  const float p = expf(h.scale * score - lse);
  return {p, p * (dp - delta) * h.scale};
}

__global__ void __launch_bounds__(kThreads) of_queries(Heads h, Gradients g, Sequences all) {
  auto& shared = shared_as<Tile>();
  const int64_t query = blockIdx.x, head = blockIdx.y, kv_head = head / (h.heads / h.kv_heads);
  const Sequence& s = sequence_of(all, query, false);
  const int64_t i = query - s.first_query, row = s.q_row + i, position = s.k_len - s.q_len + i;
  const int64_t first = h.first_key(position);
  double product = 0;
  for (int64_t c = threadIdx.x; c < h.head_dim; c += kThreads)
    product +=
        static_cast<double>(g.dout[h.at(row, head) + c]) * static_cast<double>(h.o[h.at(row, head) + c]);
  const auto delta = static_cast<float>(block_sum(product, shared.partials));
  if (threadIdx.x == 0) g.delta[query * h.heads + head] = delta;
  float sums[kColumns] = {};
  for (int64_t tile = first / kThreads * kThreads; tile <= position; tile += kThreads) {
    const int64_t key = tile + threadIdx.x;
    Pair pair{};
    if (key >= first && key <= position)
      pair = pair_of(h, g, row, head, h.at_kv(s.k_row + key, kv_head), position - key, delta);
    shared.ds[threadIdx.x] = h.operand(pair.ds);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int64_t c = threadIdx.x + int64_t{j} * kThreads;
      if (c >= h.head_dim) continue;
      for (int64_t k = tile < first ? first : tile; k <= position && k < tile + kThreads; ++k)
        sums[j] = fmaf(shared.ds[k - tile], h.operand(h.k[h.at_kv(s.k_row + k, kv_head) + c]), sums[j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    const int64_t c = threadIdx.x + int64_t{j} * kThreads;
    if (c < h.head_dim) g.dq[h.at(row, head) + c] = sums[j];
  }
}

__global__ void __launch_bounds__(kThreads) of_keys(Heads h, Gradients g, Sequences all) {
  auto& shared = shared_as<Tile>();
  const int64_t number = blockIdx.x, kv_head = blockIdx.y, group = h.heads / h.kv_heads;
  const Sequence& s = sequence_of(all, number, true);
  const int64_t key = number - s.first_key, before = s.k_len - s.q_len, at = h.at_kv(s.k_row + key, kv_head);
  const int64_t first = key > before ? key - before : 0;
  const int64_t seen = h.window > 0 ? key - before + h.window : s.q_len,
                last = seen < s.q_len ? seen : s.q_len;
  float dk[kColumns] = {}, dv[kColumns] = {};
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t tile = first; tile < last; tile += kThreads) {
      const int64_t i = tile + threadIdx.x;
      Pair pair{};
      if (i < last)
        pair = pair_of(h, g, s.q_row + i, head, at, before + i - key,
                       g.delta[(s.first_query + i) * h.heads + head]);
      shared.p[threadIdx.x] = h.operand(pair.p);
      shared.ds[threadIdx.x] = h.operand(pair.ds);
      __syncthreads();
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const int64_t c = threadIdx.x + int64_t{j} * kThreads;
        if (c >= h.head_dim) continue;
        for (int64_t query = tile; query < last && query < tile + kThreads; ++query) {
          const int64_t from = h.at(s.q_row + query, head) + c;
          dk[j] = fmaf(shared.ds[query - tile], h.operand(h.q[from]), dk[j]);
          dv[j] = fmaf(shared.p[query - tile], h.operand(g.dout[from]), dv[j]);
        }
      }
      __syncthreads();
    }
  }
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    const int64_t c = threadIdx.x + int64_t{j} * kThreads;
    if (c >= h.head_dim) continue;
    g.dk[at + c] = dk[j];
    g.dv[at + c] = dv[j];
  }
}

}  // namespace

void attention_backward(Device& d, const AttentionBackward& b) {
  const Attention& a = b.forward;
  check_heads(a);
  if (flash_takes(a)) return flash_backward(d, b);
  d.uploads.begin();
  const Sequences all = upload_sequences(d, a.sequences);
  const Heads h = heads_of(a);
  const Gradients g{static_cast<const float*>(b.dout), static_cast<float*>(b.dq), static_cast<float*>(b.dk),
                    static_cast<float*>(b.dv),
                    d.room<float>(Room::partials, static_cast<size_t>(all.queries * a.heads))};
  if (all.queries > 0)
    d.stream.launch(of_queries, dim3(static_cast<unsigned>(all.queries), static_cast<unsigned>(a.heads)),
                    dim3(kThreads), sizeof(Tile), h, g, all);
  if (all.keys > 0)
    d.stream.launch(of_keys, dim3(static_cast<unsigned>(all.keys), static_cast<unsigned>(a.kv_heads)),
                    dim3(kThreads), sizeof(Tile), h, g, all);
}

}  // namespace qlora::cuda
