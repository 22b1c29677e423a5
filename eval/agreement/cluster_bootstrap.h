#pragma once
// Intervals of statistics of judgments: prompts are drawn again with replacement, with all that was said
// about them (Efron & Tibshirani 1993), because judgments of one prompt are not independent.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace qlora {

struct Estimate {
  std::optional<double> value;   // absent where the statistic is undefined
  std::optional<double> lo, hi;  // 2.5% and 97.5% of the resamples; absent without resamples
  int64_t undefined = 0;         // resamples in which the statistic is undefined; left out of lo and hi
};

struct BootstrapOptions {
  int64_t resamples = 1000;  // 0 = no interval
  uint64_t seed = 0;
};

// The statistics of one weighting of the clusters; always the same number of them. Called from several
// threads.
using Statistics = std::function<std::vector<std::optional<double>>(std::span<const int32_t> weights)>;

// The estimates of `statistics` with every cluster once, and their intervals. Depends on the seed alone, not
// on threads. REQUIRES: clusters >= 1. Throws Error(usage) for a negative number of resamples, or one.
std::vector<Estimate> cluster_bootstrap(int64_t clusters, const BootstrapOptions&,
                                        const Statistics& statistics);

}  // namespace qlora
