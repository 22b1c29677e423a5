#pragma once
// Correlation of two lists of numbers, such as the ratings that two judges give to the same systems. All are
// absent for fewer than two values, and when one of the lists is constant.

#include <optional>
#include <span>
#include <vector>

namespace qlora {

// Ranks from 1; equal values share the mean of their ranks.
std::vector<double> average_ranks(std::span<const double>);

// REQUIRES for all: lists of one length without NaN.
std::optional<double> pearson_correlation(std::span<const double> x, std::span<const double> y);
// Pearson's correlation of the average ranks.
std::optional<double> spearman_rho(std::span<const double> x, std::span<const double> y);
// (concordant - discordant) / sqrt((pairs untied in x) (pairs untied in y)); Kendall (1945). Looks at all
// pairs.
std::optional<double> kendall_tau_b(std::span<const double> x, std::span<const double> y);

}  // namespace qlora
