#include "eval/metrics/distributions.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qlora {

namespace {

// The continued fraction of the incomplete beta function by Lentz's method; converges quickly for
// x < (a + 1) / (a + b + 2).
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  constexpr int kMaxTerms = 10'000;
  auto away_from_zero = [](double v) { return std::fabs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / away_from_zero(1 - (a + b) * x / (a + 1)), h = d;
  for (int m = 1; m <= kMaxTerms; ++m) {
    double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double change = 1;
    for (double term : {even, odd}) {
      d = 1 / away_from_zero(1 + term * d);
      c = away_from_zero(1 + term / c);
      change = d * c;
      h *= change;
    }
    if (std::fabs(change - 1) < 1e-16) break;
  }
  return h;
}

// The argument at which an increasing function on [lo, hi] takes a value, by halving.
template <class Function>
double invert(Function f, double value, double lo, double hi) {
  for (int i = 0; i < 200 && lo < hi; ++i) {
    double middle = lo + (hi - lo) / 2;
    if (middle == lo || middle == hi) break;
    (f(middle) < value ? lo : hi) = middle;
  }
  return lo + (hi - lo) / 2;
}

}  // namespace

double normal_cdf(double x) {
  return 0.5 * std::erfc(-x / M_SQRT2);
}

double normal_quantile(double p) {
  if (p > 0.5) return -normal_quantile(1 - p);  // where the cdf keeps all its digits
  return invert(normal_cdf, p, -40, 0);
}

double beta_cdf(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double beta_quantile(double a, double b, double p) {
  if (p <= 0) return 0;
  if (p >= 1) return 1;
  return invert([&](double x) { return beta_cdf(a, b, x); }, p, 0, 1);
}

double student_two_sided(double t, double degrees) {
  return beta_cdf(degrees / 2, 0.5, degrees / (degrees + t * t));
}

double student_quantile(double p, double degrees) {
  if (p < 0.5) return -student_quantile(1 - p, degrees);
  return invert([&](double t) { return 1 - student_two_sided(t, degrees) / 2; }, p, 0, 1e8);
}

double chi_square_1_above(double x) {
  return std::erfc(std::sqrt(std::max(x, 0.0) / 2));
}

double binomial_probability(int64_t k, int64_t n, double p) {
  if (k < 0 || k > n) return 0;
  if (p <= 0) return k == 0 ? 1 : 0;
  if (p >= 1) return k == n ? 1 : 0;
  auto kd = static_cast<double>(k), nd = static_cast<double>(n);
  return std::exp(std::lgamma(nd + 1) - std::lgamma(kd + 1) - std::lgamma(nd - kd + 1) + kd * std::log(p) +
                  (nd - kd) * std::log1p(-p));
}

double binomial_cdf(int64_t k, int64_t n, double p) {
  if (k < 0) return 0;
  if (k >= n) return 1;
  return beta_cdf(static_cast<double>(n - k), static_cast<double>(k + 1), 1 - p);
}

}  // namespace qlora
