#include "eval/metrics/correlation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/base/check.h"
#include "eval/metrics/distributions.h"

namespace qlora {
namespace {

void check_lengths(std::span<const double> x, std::span<const double> y) {
  QLORA_CHECK(x.size() == y.size(), failure, "correlation of {} values with {}", x.size(), y.size());
}

// The mean of equal values can differ from them by a rounding, so their squared deviations do not tell.
bool constant(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(), [&](double v) { return v == values[0]; });
}

// Ranks from 1; equal values share the mean of their places.
std::vector<double> ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> rank(values.size());
  for (size_t lo = 0; lo < order.size();) {
    size_t hi = lo + 1;
    while (hi < order.size() && values[order[hi]] == values[order[lo]]) ++hi;
    for (size_t i = lo; i < hi; ++i) rank[order[i]] = (static_cast<double>(lo + hi) + 1) / 2;
    lo = hi;
  }
  return rank;
}

// Two-sided p of a correlation of n values under Student's t.
double p_of(double r, double n) {
  return beta_cdf(n / 2 - 1, 0.5, std::max(0.0, 1 - r * r));
}

// What ties in one list take from the pairs and from the variance.
struct Ties {
  double pairs = 0, triples = 0, variance = 0;
};
Ties ties_of(std::span<const double> values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  Ties ties;
  for (size_t lo = 0; lo < sorted.size();) {
    size_t hi = lo + 1;
    while (hi < sorted.size() && sorted[hi] == sorted[lo]) ++hi;
    const auto t = static_cast<double>(hi - lo);
    ties.pairs += t * (t - 1) / 2;
    ties.triples += t * (t - 1) * (t - 2);
    ties.variance += t * (t - 1) * (2 * t + 5);
    lo = hi;
  }
  return ties;
}

// Probability that a random order of n has at most `inversions` inversions, or as few of the other kind.
double exact_kendall_p(size_t n, size_t inversions) {
  std::vector<double> share(inversions + 1, 0.0);  // P(so many inversions) among orders of the first j
  share[0] = 1;
  for (size_t j = 2; j <= n; ++j) {
    std::vector<double> next(share.size(), 0.0);
    for (size_t k = 0; k < share.size(); ++k)
      for (size_t moved = 0; moved < j && moved <= k; ++moved)
        next[k] += share[k - moved] / static_cast<double>(j);
    share = std::move(next);
  }
  return std::min(1.0, 2 * std::accumulate(share.begin(), share.end(), 0.0));
}

}  // namespace

Correlation pearson(std::span<const double> x, std::span<const double> y) {
  check_lengths(x, y);
  if (x.size() < 2 || constant(x) || constant(y)) return {};
  const auto n = static_cast<double>(x.size());
  const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / n;
  const double mean_y = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
    xy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  if (!(xx > 0) || !(yy > 0)) return {};
  const double r = std::clamp(xy / std::sqrt(xx) / std::sqrt(yy), -1.0, 1.0);
  return {r, x.size() == 2 ? 1.0 : p_of(r, n)};
}

Correlation spearman(std::span<const double> x, std::span<const double> y) {
  check_lengths(x, y);
  Correlation of_ranks = pearson(ranks(x), ranks(y));
  if (x.size() <= 2) of_ranks.p.reset();
  return of_ranks;
}

Correlation kendall(std::span<const double> x, std::span<const double> y) {
  check_lengths(x, y);
  if (x.size() < 2) return {};
  const auto n = static_cast<double>(x.size());
  double concordant = 0, discordant = 0;
  for (size_t i = 0; i < x.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      const int a = (x[i] > x[j]) - (x[i] < x[j]), b = (y[i] > y[j]) - (y[i] < y[j]);
      if (a * b > 0) ++concordant;
      if (a * b < 0) ++discordant;
    }
  const Ties tx = ties_of(x), ty = ties_of(y);
  const double pairs = n * (n - 1) / 2;
  if (tx.pairs == pairs || ty.pairs == pairs) return {};
  Correlation tau;
  tau.value = (concordant - discordant) / std::sqrt(pairs - tx.pairs) / std::sqrt(pairs - ty.pairs);
  const double fewer = std::min(discordant, pairs - discordant);
  if (tx.pairs == 0 && ty.pairs == 0 && (x.size() <= 33 || fewer <= 1)) {
    tau.p = exact_kendall_p(x.size(), static_cast<size_t>(fewer));
    return tau;
  }
  const double m = n * (n - 1);
  double variance = (m * (2 * n + 5) - tx.variance - ty.variance) / 18 + 2 * tx.pairs * ty.pairs / m;
  if (n > 2) variance += tx.triples * ty.triples / (9 * m * (n - 2));
  tau.p = std::erfc(std::abs(concordant - discordant) / std::sqrt(variance) / std::sqrt(2.0));
  return tau;
}

}  // namespace qlora
