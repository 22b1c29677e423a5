#include "core/models/sampling.h"

#include <cmath>

#include "core/base/check.h"
#include "core/base/philox.h"

namespace qlora {
namespace {

uint64_t random_number(uint64_t key, uint64_t place) {
  const Philox4 r = philox(key, static_cast<uint32_t>(place), static_cast<uint32_t>(place >> 32), 0, 0);
  return uint64_t{r.v[0]} << 32 | r.v[1];
}

}  // namespace

void check_sampling(const Sampling& s) {
  QLORA_CHECK(s.temperature >= 0 && std::isfinite(s.temperature), usage,
              "temperature {}: must be 0 (greedy) or above", s.temperature);
  QLORA_CHECK(s.top_p > 0 && s.top_p <= 1, usage, "top_p {}: must be above 0 and at most 1", s.top_p);
  QLORA_CHECK(s.top_k >= 0, usage, "top_k {}: must be 0 (all tokens) or above", s.top_k);
  QLORA_CHECK(s.repetition_penalty > 0 && std::isfinite(s.repetition_penalty), usage,
              "repetition_penalty {}: must be above 0 (1: none)", s.repetition_penalty);
}

uint64_t sampling_key(uint64_t seed, std::string_view question) {
  return mix_seed(seed, stream_of(question.data(), question.size()));
}

Sampler::Sampler(const Sampling& sampling, std::span<const int32_t> prompt) : sampling_(sampling) {
  for (int32_t token : prompt) see(token);
}

void Sampler::see(int32_t token) {
  const auto at = static_cast<size_t>(token);
  if (sampling_.repetition_penalty == 1) return;
  if (at >= is_seen_.size()) is_seen_.resize(at + 1, false);
  if (is_seen_[at]) return;
  is_seen_[at] = true;
  seen_.push_back(token);
}

TokenChoice Sampler::next(std::vector<int32_t>& seen) const {
  const auto begin = static_cast<int32_t>(seen.size());
  seen.insert(seen.end(), seen_.begin(), seen_.end());
  return {.temperature = sampling_.temperature,
          .top_p = sampling_.top_p,
          .top_k = sampling_.top_k,
          .random = random_number(sampling_.key, place_),
          .penalty = static_cast<float>(sampling_.repetition_penalty),
          .seen_begin = begin,
          .seen_end = static_cast<int32_t>(seen.size())};
}

void Sampler::take(int32_t token) {
  ++place_;
  see(token);
}

std::vector<int32_t> next_tokens(const Tensor& logits, std::span<Sampler* const> samplers) {
  const std::vector<std::span<const int32_t>> no_drafts(samplers.size());
  std::vector<int32_t> tokens;
  for (const std::vector<int32_t>& of_one : next_tokens(logits, samplers, no_drafts))
    tokens.push_back(of_one[0]);
  return tokens;
}

std::vector<std::vector<int32_t>> next_tokens(const Tensor& logits, std::span<Sampler* const> samplers,
                                              std::span<const std::span<const int32_t>> drafts) {
  std::vector<TokenChoice> choices;
  std::vector<int32_t> seen;
  for (size_t i = 0; i < samplers.size(); ++i) {
    choices.push_back(samplers[i]->next(seen));
    if (drafts[i].empty()) continue;
    Sampler ahead = *samplers[i];
    for (int32_t token : drafts[i]) {
      ahead.take(token);
      choices.push_back(ahead.next(seen));
    }
  }
  const Tensor chosen(logits.memory(), {logits.rows()}, DType::i32, Tag::scratch);
  logits.backend().sample({.logits = logits.data(),
                           .choices = choices,
                           .seen = seen,
                           .tokens = chosen.as<int32_t>(),
                           .rows = logits.rows(),
                           .vocab = logits.cols(),
                           .type = logits.type()});
  std::vector<int32_t> of_rows(choices.size());
  chosen.to_host(std::as_writable_bytes(std::span(of_rows)));
  std::vector<std::vector<int32_t>> tokens(samplers.size());
  for (size_t i = 0, row = 0; i < tokens.size(); row += 1 + drafts[i++].size()) {
    for (size_t k = 0; k <= drafts[i].size(); ++k) {
      const int32_t token = of_rows[row + k];
      QLORA_CHECK(token >= 0, failure, "the model's logits are not finite: no token can be chosen");
      samplers[i]->take(token);
      tokens[i].push_back(token);
      if (k < drafts[i].size() && token != drafts[i][k]) break;
    }
  }
  return tokens;
}

}  // namespace qlora
