#pragma once
// The distributions that intervals and tests need. Accurate to 1e-12 or better where they are used.

#include <cstdint>

namespace qlora {

double normal_cdf(double x);
// The x below which a fraction p of the standard normal lies. REQUIRES: 0 < p < 1.
double normal_quantile(double p);

// The regularized incomplete beta function I_x(a, b). REQUIRES: a, b > 0, x in [0, 1].
double beta_cdf(double a, double b, double x);
// The x with I_x(a, b) = p. REQUIRES: p in [0, 1].
double beta_quantile(double a, double b, double p);

// P(|T| >= |t|) for Student's T with so many degrees of freedom.
double student_two_sided(double t, double degrees);
double student_quantile(double p, double degrees);

// P(X >= x) for chi-square with one degree of freedom.
double chi_square_1_above(double x);

// P(K = k) and P(K <= k) of n throws with chance p.
double binomial_probability(int64_t k, int64_t n, double p);
double binomial_cdf(int64_t k, int64_t n, double p);

}  // namespace qlora
