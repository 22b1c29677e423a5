#include "core/models/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/check.h"
#include "core/base/philox.h"

namespace qlora {
namespace {

int32_t first_largest(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Uniform in [0, 1) with 53 bits.
double random_number(uint64_t key, uint64_t place) {
  const Philox4 r = philox(key, static_cast<uint32_t>(place), static_cast<uint32_t>(place >> 32), 0, 0);
  return static_cast<double>(((uint64_t{r.v[0]} << 32) | r.v[1]) >> 11) * 0x1p-53;
}

// Tokens by falling logit, of equal ones the smaller id first; sorted only as far as they are asked for.
class Ranking {
 public:
  explicit Ranking(std::span<const float> logits) : logits_(logits), ids_(logits.size()) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }
  size_t size() const { return ids_.size(); }
  size_t operator[](size_t rank) {
    while (rank >= sorted_) sort_more();
    return static_cast<size_t>(ids_[rank]);
  }

 private:
  void sort_more() {
    auto higher = [this](int32_t a, int32_t b) {
      const float x = logits_[static_cast<size_t>(a)], y = logits_[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    };
    const size_t end = std::min(ids_.size(), std::max<size_t>(64, 4 * sorted_));
    auto at = [this](size_t i) { return ids_.begin() + static_cast<std::ptrdiff_t>(i); };
    if (end < ids_.size()) std::nth_element(at(sorted_), at(end), ids_.end(), higher);
    std::sort(at(sorted_), at(end), higher);
    sorted_ = end;
  }

  std::span<const float> logits_;
  std::vector<int32_t> ids_;
  size_t sorted_ = 0;
};

// The token at `u` of the distribution's mass, the likeliest tokens first.
int32_t draw(std::span<const float> logits, const Sampling& sampling, double u) {
  const double most = logits[static_cast<size_t>(first_largest(logits))];
  std::vector<double> weights(logits.size());
  double mass = 0;
  for (size_t i = 0; i < weights.size(); ++i)
    mass += weights[i] = std::exp((static_cast<double>(logits[i]) - most) / sampling.temperature);
  QLORA_CHECK(std::isfinite(mass), failure, "the model's logits are not finite: no token can be drawn");
  Ranking ranking(logits);
  size_t kept = ranking.size();
  if (const auto k = static_cast<size_t>(sampling.top_k); k > 0 && k < kept) {
    const float last = logits[ranking[k - 1]];
    mass = 0;
    for (kept = 0; kept < ranking.size() && logits[ranking[kept]] >= last; ++kept)
      mass += weights[ranking[kept]];
  }
  if (sampling.top_p < 1) {
    const double wanted = sampling.top_p * mass;
    size_t n = 0;
    for (mass = 0; n < kept && mass < wanted; ++n) mass += weights[ranking[n]];
    kept = n;
  }
  double sum = 0;
  for (size_t i = 0; i + 1 < kept; ++i) {
    sum += weights[ranking[i]];
    if (sum > u * mass) return static_cast<int32_t>(ranking[i]);
  }
  return static_cast<int32_t>(ranking[kept - 1]);
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

int32_t Sampler::next(std::span<const float> logits) {
  if (!seen_.empty()) {
    changed_.assign(logits.begin(), logits.end());
    const auto penalty = static_cast<float>(sampling_.repetition_penalty);
    for (int32_t token : seen_) {
      float& x = changed_[static_cast<size_t>(token)];
      x = x < 0 ? x * penalty : x / penalty;
    }
    logits = changed_;
  }
  const int32_t token = sampling_.temperature == 0
                            ? first_largest(logits)
                            : draw(logits, sampling_, random_number(sampling_.key, place_));
  ++place_;
  see(token);
  return token;
}

}  // namespace qlora
