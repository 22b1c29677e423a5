#pragma once
// Correlation coefficients of two lists, with the two-sided p-value of "no correlation".

#include <optional>
#include <span>

namespace qlora {

// Nothing where it is undefined: a constant list, fewer than two values, or (p alone) too few of them.
struct Correlation {
  std::optional<double> value, p;
};

// All throw Error(failure) unless both lists have the same length.
// Product-moment correlation; p from Student's t with n - 2 degrees of freedom (1 for two values).
Correlation pearson(std::span<const double> x, std::span<const double> y);
// Pearson of the ranks, ties sharing their mean rank; p likewise, none for two values.
Correlation spearman(std::span<const double> x, std::span<const double> y);
// Kendall's tau-b. p is exact without ties for n <= 33 or at most one discordant (or concordant) pair;
// otherwise from the normal approximation with the variance under ties. O(n^2).
Correlation kendall(std::span<const double> x, std::span<const double> y);

}  // namespace qlora
