// Tokens drawn from logits.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/draw.h"
#include "kernels/reference/loops.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace {

// Tokens by falling logit, of equal ones the smaller index first; sorted only as far as they are asked for.
class Ranking {
 public:
  explicit Ranking(std::span<const float> logits) : logits_(logits), ids_(logits.size()) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }
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

// Steps 3 to 6 of Sample.
int32_t drawn(std::span<const float> logits, const TokenChoice& how, float largest) {
  const float rate = draw::rate_of(how.temperature);
  std::vector<uint64_t> weights(logits.size());
  uint64_t mass = 0;
  for (size_t i = 0; i < weights.size(); ++i) mass += weights[i] = draw::weight_of(logits[i], largest, rate);
  Ranking ranking(logits);
  if (const auto k = static_cast<size_t>(how.top_k); k > 0 && k < logits.size()) {
    const float last = logits[ranking[k - 1]];
    mass = 0;
    for (size_t i = 0; i < logits.size() && logits[ranking[i]] >= last; ++i) mass += weights[ranking[i]];
  }
  if (how.top_p < 1) {
    const uint64_t wanted = draw::wanted_mass(how.top_p, mass);
    mass = 0;
    for (size_t i = 0; mass < wanted; ++i) mass += weights[ranking[i]];
  }
  const uint64_t place = draw::place_in(how.random, mass);
  size_t rank = 0;
  for (uint64_t sum = weights[ranking[0]]; sum <= place;) sum += weights[ranking[++rank]];
  return static_cast<int32_t>(ranking[rank]);
}

int32_t chosen(std::span<float> logits, const TokenChoice& how, std::span<const int32_t> seen) {
  for (int32_t token : seen) {
    float& x = logits[static_cast<size_t>(token)];
    x = draw::penalized(x, how.penalty);
  }
  size_t best = 0;
  bool numbers = true;
  for (size_t i = 0; i < logits.size(); ++i) {
    numbers &= logits[i] < std::numeric_limits<float>::infinity();
    if (logits[i] > logits[best]) best = i;
  }
  if (!numbers || std::isinf(logits[best])) return -1;
  return how.temperature == 0 ? static_cast<int32_t>(best) : drawn(logits, how, logits[best]);
}

std::vector<float> floats_of(const double* x, int64_t n) {
  std::vector<float> all;
  for (int64_t i = 0; i < n; ++i) all.push_back(static_cast<float>(x[i]));
  return all;
}

}  // namespace

void Reference::sample(const Sample& a) {
  split(a.rows, a.vocab * 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const TokenChoice& how = a.choices[static_cast<size_t>(row)];
      const auto seen = a.seen.subspan(static_cast<size_t>(how.seen_begin),
                                       static_cast<size_t>(how.seen_end - how.seen_begin));
      if (a.type == DType::f64) {
        std::vector<float> x = floats_of(static_cast<const double*>(a.logits) + row * a.vocab, a.vocab);
        a.tokens[row] = chosen(x, how, seen);
      } else {
        float* x = static_cast<float*>(a.logits) + row * a.vocab;
        a.tokens[row] = chosen({x, static_cast<size_t>(a.vocab)}, how, seen);
      }
    }
  });
}

}  // namespace qlora
