#pragma once
// Online Elo ratings over many random orders of the matches (Elo 1978; the way of FastChat and of QLoRA's
// Table 1: Dettmers et al. 2023). One order: every rating starts at `initial`; for each match with score s
// (1, 1/2, 0) of the first system,
//   e = 1 / (1 + base^((r2 - r1) / scale)),   r1 += K (s - e),   r2 -= K (s - e).
// Reported is the mean over orders. Three kinds of spread are kept apart: order_sd (of one order's ratings:
// noise of the method), mc_error (of the reported mean over orders), and the confidence interval (of the
// data: prompts drawn again with replacement).

#include <cstdint>
#include <span>
#include <string>

#include "eval/ratings/report.h"

namespace qlora {

// What one order of the matches is.
enum class Rounds {
  shuffle,    // all of them, each once
  bootstrap,  // as many as there are, drawn with replacement (FastChat's way); the same mean, more noise
};
Rounds rounds_from(const std::string& name);  // shuffle | bootstrap; throws Error(usage)

struct EloOptions {
  double k = 32;
  double initial = 1000, base = 10, scale = 400;
  int64_t orders = 10'000;
  Rounds rounds = Rounds::shuffle;
  bool drop_ties = false;         // before anything else; otherwise a tie is half a win of each
  int64_t bootstrap = 0;          // resamples of the clusters; 0 = no interval
  int64_t bootstrap_orders = 32;  // orders averaged for each resample
  Cluster cluster = Cluster::prompt;
  uint64_t seed = 0;
};

struct EloReport : RatingReport {
  EloOptions options;
};

// Deterministic: the result depends on the matches, the options and the seed alone, to the last bit, for any
// number of threads (thread_count()). The order of `matches` matters for single orders but not in the mean.
// Throws Error(usage) for options out of range (bootstrap without prompts included), Error(data) when there
// is no match or one names a system out of range or against itself.
EloReport compute_elo(std::span<const std::string> systems, std::span<const Match> matches,
                      const EloOptions&);

}  // namespace qlora
