#pragma once
// Tests of two systems on the same items. All p-values are two-sided.

#include <cstdint>
#include <span>

namespace qlora {

// McNemar 1947, from the items on which only the one (b) and only the other (c) was right. REQUIRES: b, c >=
// 0.
struct McNemar {
  double exact_p = 1;         // binomial
  double chi2_corrected = 0;  // (|b - c| - 1)^2 / (b + c), with the continuity correction; 0 for b + c = 0
  double chi2_corrected_p = 1;
};
McNemar mcnemar_test(int64_t b, int64_t c);

// Whether k of n (ties left out) may be one half. REQUIRES: 0 <= k <= n.
double sign_test(int64_t k, int64_t n);

struct PairedT {
  double t = 0, p = 1;
};
// Student's t of the differences. REQUIRES: equal sizes, at least two items, not all differences alike.
PairedT paired_t_test(std::span<const double> x, std::span<const double> y);

// Wilcoxon's signed ranks: items without a difference are left out, equal ones share their mean rank. The
// p-value is exact up to 50 items without zeros and ties, else normal without a continuity correction
// (scipy's choice). REQUIRES: equal sizes, some difference.
struct Wilcoxon {
  double w = 0;  // the smaller of the two rank sums
  double p = 1;
};
Wilcoxon wilcoxon_test(std::span<const double> x, std::span<const double> y);

// The standard error of a mean, and half of its 95% interval by Student's t. REQUIRES: at least two values.
double standard_error(std::span<const double> values);
double t95_half_width(std::span<const double> values);

}  // namespace qlora
