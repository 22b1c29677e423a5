#pragma once
// Scores relative to a reference system, in percent: 100 * (sum of a system's points) / (sum of the
// reference's points on the same items), as Table 6 of the QLoRA paper has them relative to ChatGPT. A ratio
// of sums, not a mean of ratios; votes without points are left out of both sums.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/agreement/cluster_bootstrap.h"
#include "eval/judge/judgments.h"

namespace qlora {

struct RelativeScore {
  std::string system, judge;
  Estimate reference_first, system_first;  // by which answer was shown first
  Estimate pooled;                         // sums over both orders, and over votes of unknown order
  int64_t reference_first_votes = 0, system_first_votes = 0, votes = 0;  // valid
  int64_t invalid = 0;
};

// One row a system and judge, best pooled score first. Reads votes on two answers of which one is the
// reference's, and scores of single answers by one judge (laid side by side by item and turn; they have no
// order). Throws Error(usage) for a reference that no vote with points is about, with the nearest name;
// Error(data) when there are no points at all.
std::vector<RelativeScore> relative_scores(std::span<const JudgmentFile>, const std::string& reference,
                                           const BootstrapOptions& = {});

// Table 6 as printed (Dettmers et al. 2023).
struct PublishedRelativeScore {
  std::string_view system;  // as system_alias() names it
  double reference_first, system_first, mean;
  std::string_view remark;  // what is known to be wrong in print; may be empty
};
std::span<const PublishedRelativeScore> published_relative_scores();

}  // namespace qlora
