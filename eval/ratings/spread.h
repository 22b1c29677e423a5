#pragma once
// How far the parameters of a fit (fit.h) may be off, in natural units: two ways to say it.

#include <cstdint>
#include <span>
#include <vector>

#include "eval/ratings/fit.h"
#include "eval/ratings/report.h"

namespace qlora {

struct Spread {
  std::vector<double> se, lo, hi;          // [parameters]; 95%
  std::vector<std::vector<double>> draws;  // [draw][parameters], for ranks
  int64_t degenerate = 0;                  // draws whose matches have no maximum, see below
};

// Clusters drawn again with replacement, as many as there are; percentiles. Draw i depends on seed and i
// alone.
Spread bootstrap_spread(const Design&, std::span<const Match>, const Clusters&, const Fit&, int64_t draws,
                        uint64_t seed);

// The cluster-robust sandwich and normal intervals; `draws` from that normal distribution, for ranks.
Spread sandwich_spread(const Design&, std::span<const Match>, const Clusters&, const Fit&, int64_t draws,
                       uint64_t seed);

}  // namespace qlora
