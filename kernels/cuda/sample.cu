// Tokens drawn from logits (Sample in args_sample.h), where they lie: only the tokens go to the host.
//
// A ranking is never sorted. What is asked for - the k-th token, the one at which the nucleus ends, the one
// that is drawn - is the first of the ranking at which a sum of whole numbers exceeds a target, and is found
// digit by digit of its logit, from the highest on: the amounts of the tokens that share the digits found so
// far are added by their next digit, and the digit at which the sum passes the target is the next one. Sums
// of whole numbers are the same in any order. A block a row; every pass reads the row again, from the cache.

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/draw.h"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kDigit = 5, kBins = 1 << kDigit;  // bits of a digit, and its values
constexpr int kTopDigit = 30;                   // of 32 bits: it has two

struct Sampling {
  uint64_t bins[kBins][kThreads];  // each thread adds up in a column of its own
  uint64_t sums[kBins];
  uint64_t partials[kMostWarps];
  float largest[kMostWarps];
  int first[kMostWarps];
};

// The key at which the sum exceeds the target, and the amounts before it.
struct Found {
  uint32_t key = 0;
  uint64_t before = 0;
};

// sums[bin] = what the threads have in it; a warp a bin.
__device__ void add_bins(Sampling& shared) {
  const unsigned lane = threadIdx.x % 32;
  for (unsigned bin = threadIdx.x / 32; bin < kBins; bin += kThreads / 32) {
    uint64_t sum = 0;
    for (unsigned thread = lane; thread < kThreads; thread += 32) sum += shared.bins[bin][thread];
    sum = warp_sum(sum);
    if (lane == 0) shared.sums[bin] = sum;
  }
}

// Entries i in [0, n), the largest key(i) first, have amount(i); keys are below 2^(top + kDigit). REQUIRES:
// the amounts add up to more than the target.
template <class Entries>
__device__ Found find(Sampling& shared, const Entries& entries, int64_t n, uint64_t target,
                      int top = kTopDigit) {
  Found found;
  uint64_t digits = 0;
  for (int shift = top; shift >= 0; shift -= kDigit) {
    for (int bin = 0; bin < kBins; ++bin) shared.bins[bin][threadIdx.x] = 0;
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      const uint32_t key = entries.key(i);
      if (uint64_t{key} >> (shift + kDigit) == digits)
        shared.bins[(key >> shift) % kBins][threadIdx.x] += entries.amount(i);
    }
    __syncthreads();
    add_bins(shared);
    __syncthreads();
    unsigned bin = kBins - 1;
    while (bin > 0 && found.before + shared.sums[bin] <= target) found.before += shared.sums[bin--];
    digits = digits << kDigit | bin;
  }
  found.key = static_cast<uint32_t>(digits);
  return found;
}

// The tokens of a row, each counted once.
struct Tokens {
  const float* x;
  __device__ uint32_t key(int64_t i) const { return draw::order_of(x[i]); }
  __device__ uint64_t amount(int64_t) const { return 1; }
};

// The tokens of a row with their weights, from the key `lowest` on.
struct Weights {
  const float* x;
  float largest, rate;
  uint32_t lowest;
  __device__ uint32_t key(int64_t i) const { return draw::order_of(x[i]); }
  __device__ uint64_t amount(int64_t i) const { return key(i) < lowest ? 0 : of(x[i]); }
  __device__ uint64_t of(float value) const { return draw::weight_of(value, largest, rate); }
};

// The tokens with one logit, the smaller index first.
struct EqualTokens {
  const float* x;
  uint32_t order, last;  // index
  __device__ uint32_t key(int64_t i) const { return last - static_cast<uint32_t>(i); }
  __device__ uint64_t amount(int64_t i) const { return draw::order_of(x[i]) == order ? 1 : 0; }
};

__device__ uint64_t mass_of(Sampling& shared, const Weights& row, int64_t vocab) {
  uint64_t mass = 0;
  for (int64_t i = threadIdx.x; i < vocab; i += kThreads) mass += row.amount(i);
  return block_sum(mass, shared.partials);
}

// The mass of the first of the ranking that reach `wanted`.
__device__ uint64_t mass_reaching(Sampling& shared, const Weights& row, int64_t vocab, uint64_t wanted) {
  const Found last = find(shared, row, vocab, wanted - 1);
  const uint64_t each = row.of(draw::with_order(last.key));
  return last.before + ((wanted - 1 - last.before) / each + 1) * each;
}

// The token at which the sum of the ranking exceeds `place`.
__device__ int32_t token_at(Sampling& shared, const Weights& row, int64_t vocab, uint64_t place) {
  const Found drawn = find(shared, row, vocab, place);
  const uint64_t rank = (place - drawn.before) / row.of(draw::with_order(drawn.key));
  const EqualTokens equal{row.x, drawn.key, static_cast<uint32_t>(vocab - 1)};
  int top = 0;
  while (equal.last >> (top + kDigit) != 0) top += kDigit;
  return static_cast<int32_t>(equal.last - find(shared, equal, vocab, rank, top).key);
}

// Steps 3 to 6 of Sample.
__device__ int32_t drawn_token(Sampling& shared, const float* x, int64_t vocab, float largest,
                               const TokenChoice& how) {
  Weights row{x, largest, draw::rate_of(how.temperature), 0};
  if (how.top_k > 0 && how.top_k < vocab)
    row.lowest = find(shared, Tokens{x}, vocab, static_cast<uint64_t>(how.top_k - 1)).key;
  uint64_t mass = mass_of(shared, row, vocab);
  if (how.top_p < 1) mass = mass_reaching(shared, row, vocab, draw::wanted_mass(how.top_p, mass));
  return token_at(shared, row, vocab, draw::place_in(how.random, mass));
}

__global__ void __launch_bounds__(kThreads)
    choose(float* logits, int64_t vocab, const TokenChoice* choices, const int32_t* seen, int32_t* tokens) {
  auto& shared = shared_as<Sampling>();
  const TokenChoice how = choices[blockIdx.x];
  float* x = logits + blockIdx.x * vocab;
  for (int i = how.seen_begin + static_cast<int>(threadIdx.x); i < how.seen_end; i += kThreads)
    x[seen[i]] = draw::penalized(x[seen[i]], how.penalty);
  __syncthreads();
  float mine = -INFINITY;
  int where = 0x7fffffff;
  for (int64_t i = threadIdx.x; i < vocab; i += kThreads) {
    if (!(x[i] < INFINITY)) mine = INFINITY;
    if (x[i] > mine) {
      mine = x[i];
      where = static_cast<int>(i);
    }
  }
  const float largest = block_max(mine, shared.largest);
  int32_t token = -1;
  if (fabsf(largest) < INFINITY)
    token = how.temperature == 0 ? block_min(mine == largest ? where : 0x7fffffff, shared.first)
                                 : drawn_token(shared, x, vocab, largest, how);
  if (threadIdx.x == 0) tokens[blockIdx.x] = token;
}

}  // namespace

void sample(Device& d, const Sample& a) {
  if (a.rows == 0) return;
  d.uploads.begin();
  d.stream.launch(choose, dim3(static_cast<unsigned>(a.rows)), dim3(kThreads), sizeof(Sampling),
                  static_cast<float*>(a.logits), a.vocab,
                  d.uploads.put(d.stream, a.choices.data(), a.choices.size()),
                  d.uploads.put(d.stream, a.seen.data(), a.seen.size()), a.tokens);
}

}  // namespace qlora::cuda
