#pragma once
// How the next token is chosen from its logits. The order of things is that of transformers: the repetition
// penalty (Keskar et al. 2019), then the temperature, top-k, and the nucleus (top-p, Holtzman et al. 2020).

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"

namespace qlora {

struct Sampling {
  double temperature = 0;  // logits are divided by it; 0: greedy, the first index of the largest logit
  double top_p = 1;        // the likeliest tokens whose probabilities reach this sum; 1: all
  int64_t top_k = 0;       // the k likeliest tokens, with all that are equal to the last; 0: all
  // Of every token that the prompt or the answer has: a logit above 0 is divided by it, one below multiplied.
  double repetition_penalty = 1;
  uint64_t key = 0;  // of the random numbers, see sampling_key()
  bool operator==(const Sampling&) const = default;
};

// Throws Error(usage) for a value out of range, naming it: temperature >= 0, 0 < top_p <= 1, top_k >= 0,
// repetition_penalty > 0.
void check_sampling(const Sampling&);

// Random numbers are a pure function of seed, question and the place of the token in the answer: they depend
// on no order, no batch and no other question.
uint64_t sampling_key(uint64_t seed, std::string_view question);

// What the tokens of one answer are chosen by, one after another.
class Sampler {
 public:
  // REQUIRES: check_sampling() passes.
  Sampler(const Sampling&, std::span<const int32_t> prompt);

 private:
  friend std::vector<std::vector<int32_t>> next_tokens(const Tensor&, std::span<Sampler* const>,
                                                       std::span<const std::span<const int32_t>>);
  TokenChoice next(std::vector<int32_t>& seen) const;  // appends the tokens that get the penalty
  void take(int32_t token);
  void see(int32_t token);

  Sampling sampling_;
  uint64_t place_ = 0;
  std::vector<int32_t> seen_;  // each token once; kept for the penalty only
  std::vector<bool> is_seen_;  // by token
};

// The next token of each answer from its row of `logits` [samplers, vocabulary], f32 or f64, which are
// undefined afterwards. They are chosen where they lie: only tokens are copied to the host. Throws
// Error(failure) when logits are not finite.
std::vector<int32_t> next_tokens(const Tensor& logits, std::span<Sampler* const>);

// The same where answer i has 1 + drafts[i].size() rows in turn: of its last token, and of each token of its
// draft as if all up to there had been chosen. Returns the tokens of each answer: those of its draft that are
// chosen indeed, and the one that is chosen after them. They are the tokens that one row after another would
// yield; rows past them are not looked at.
std::vector<std::vector<int32_t>> next_tokens(const Tensor& logits, std::span<Sampler* const>,
                                              std::span<const std::span<const int32_t>> drafts);

}  // namespace qlora
