// Tokens drawn from logits.

#include <algorithm>
#include <cmath>
#include <limits>
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

// The largest logit; NaN where one is not a number or +infinity. Lanes, so that the compiler makes vectors.
float largest_of(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float top[kLanes], sum[kLanes] = {};  // a sum of zeros: NaN where an element is none of the numbers
  std::fill_n(top, kLanes, -kInfinity);
  const auto take = [&](size_t i, size_t lanes) {
    for (size_t l = 0; l < lanes; ++l) {
      const float x = logits[i + l];
      top[l] = x > top[l] ? x : top[l];
      sum[l] += x < kInfinity ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    }
  };
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) take(i, kLanes);
  take(i, logits.size() - i);
  float largest = top[0], bad = sum[0];
  for (size_t l = 1; l < kLanes; ++l) {
    largest = std::max(largest, top[l]);
    bad += sum[l];
  }
  return largest + bad;
}

int32_t chosen(std::span<float> logits, const TokenChoice& how, std::span<const int32_t> seen) {
  for (int32_t token : seen) {
    float& x = logits[static_cast<size_t>(token)];
    x = draw::penalized(x, how.penalty);
  }
  const float largest = largest_of(logits);
  if (!std::isfinite(largest)) return -1;
  if (how.temperature != 0) return drawn(logits, how, largest);
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
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
