#include "eval/ratings/paired_tests.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "eval/metrics/distributions.h"

namespace qlora {

namespace {

// P of k or anything less likely among n fair throws.
double fair_two_sided(int64_t k, int64_t n) {
  return std::min(1.0, 2 * binomial_cdf(std::min(k, n - k), n, 0.5));
}

std::vector<double> differences(std::span<const double> x, std::span<const double> y) {
  std::vector<double> d;
  for (size_t i = 0; i < x.size(); ++i) d.push_back(x[i] - y[i]);
  return d;
}

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// P(W <= w) without ties: each of the ranks 1..n is in the sum or not, all 2^n choices alike.
double exact_rank_sum_cdf(int64_t w, size_t n) {
  std::vector<double> chance(n * (n + 1) / 2 + 1);
  chance[0] = 1;
  for (size_t rank = 1; rank <= n; ++rank)
    for (size_t sum = chance.size(); sum-- > 0;)
      chance[sum] = 0.5 * chance[sum] + (sum >= rank ? 0.5 * chance[sum - rank] : 0);
  double below = 0;
  for (int64_t sum = 0; sum <= w; ++sum) below += chance[static_cast<size_t>(sum)];
  return below;
}

}  // namespace

McNemar mcnemar_test(int64_t b, int64_t c) {
  McNemar out;
  if (b + c == 0) return out;
  out.exact_p = fair_two_sided(b, b + c);
  double apart = static_cast<double>(std::abs(b - c)) - 1;
  out.chi2_corrected = apart * apart / static_cast<double>(b + c);
  out.chi2_corrected_p = chi_square_1_above(out.chi2_corrected);
  return out;
}

double sign_test(int64_t k, int64_t n) {
  return n == 0 ? 1 : fair_two_sided(k, n);
}

double standard_error(std::span<const double> values) {
  double mean = mean_of(values), squares = 0;
  for (double v : values) squares += (v - mean) * (v - mean);
  auto n = static_cast<double>(values.size());
  return std::sqrt(squares / (n - 1) / n);
}

double t95_half_width(std::span<const double> values) {
  return student_quantile(0.975, static_cast<double>(values.size()) - 1) * standard_error(values);
}

PairedT paired_t_test(std::span<const double> x, std::span<const double> y) {
  std::vector<double> d = differences(x, y);
  PairedT out;
  out.t = mean_of(d) / standard_error(d);
  out.p = student_two_sided(out.t, static_cast<double>(d.size()) - 1);
  return out;
}

Wilcoxon wilcoxon_test(std::span<const double> x, std::span<const double> y) {
  std::vector<double> d = differences(x, y);
  size_t all = d.size();
  d.erase(std::remove(d.begin(), d.end(), 0.0), d.end());
  std::sort(d.begin(), d.end(), [](double a, double b) { return std::fabs(a) < std::fabs(b); });
  size_t n = d.size();
  double above = 0, ties = 0;
  for (size_t i = 0; i < n;) {
    size_t end = i;
    while (end < n && std::fabs(d[end]) == std::fabs(d[i])) ++end;
    auto group = static_cast<double>(end - i);
    double rank = static_cast<double>(i + end + 1) / 2;
    ties += group * (group * group - 1);
    for (; i < end; ++i) above += d[i] > 0 ? rank : 0;
  }
  auto nd = static_cast<double>(n);
  double total = nd * (nd + 1) / 2;
  Wilcoxon out;
  out.w = std::min(above, total - above);
  if (n == all && ties == 0 && n <= 50) {
    out.p = std::min(1.0, 2 * exact_rank_sum_cdf(std::llround(out.w), n));
  } else {
    double variance = nd * (nd + 1) * (2 * nd + 1) / 24 - ties / 48;
    out.p = std::erfc(std::fabs(out.w - total / 2) / std::sqrt(2 * variance));
  }
  return out;
}

}  // namespace qlora
