#pragma once
// Online Elo ratings over many random orders of the matches (Elo 1978; the way of FastChat and of QLoRA's
// Table 1: Dettmers et al. 2023). One order: every rating starts at `initial`; for each match with score s
// (1, 1/2, 0) of the first system,
//   e = 1 / (1 + base^((r2 - r1) / scale)),   r1 += K (s - e),   r2 -= K (s - e).
// Reported is the mean over orders. Three kinds of spread are kept apart: order_sd (of one order's ratings:
// noise of the method), mc_error (of the reported mean over orders), and the confidence interval (of the
// data: prompts drawn again with replacement).

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/ratings/match.h"

namespace qlora {

struct EloOptions {
  double k = 32;
  double initial = 1000, base = 10, scale = 400;
  int64_t orders = 10'000;
  int64_t bootstrap = 0;          // resamples of the prompts; 0 = no interval
  int64_t bootstrap_orders = 32;  // orders averaged for each resample
  uint64_t seed = 0;
};

struct Rating {
  std::string system;
  double rating = 0;                   // mean over orders
  double order_sd = 0;                 // standard deviation over orders
  double mc_error = 0;                 // order_sd / sqrt(orders)
  std::optional<double> ci_lo, ci_hi;  // 2.5% and 97.5% of the bootstrap
  int64_t games = 0, wins = 0, losses = 0, ties = 0;
  int64_t invalid = 0;  // votes without a verdict, dropped before; set by the caller
};

struct EloReport {
  std::vector<Rating> ratings;  // best first; equal ratings by name
  int64_t matches = 0, prompts = 0;
  EloOptions options;
  std::string ci_method;  // "95%, prompts drawn again 1000 times, 32 orders each", or empty
  std::string note;       // for the reader, such as why there is no interval; may be empty
};

// Deterministic: the result depends on the matches, the options and the seed alone, to the last bit, for any
// number of threads (thread_count()). The order of `matches` matters for single orders but not in the mean.
// Throws Error(usage) for options out of range (bootstrap without prompts included), Error(data) when there
// is no match or one names a system out of range or against itself.
EloReport compute_elo(std::span<const std::string> systems, std::span<const Match> matches,
                      const EloOptions&);

}  // namespace qlora
