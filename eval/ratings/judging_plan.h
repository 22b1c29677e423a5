#pragma once
// Which pair of systems to judge next. A match is worth the information that it is expected to add about all
// strengths together: half of log2 det(I + F V), in bits, where V is the covariance of what is known so far
// and F the Fisher information of one more match (Lindley 1956; D-optimal design). Close pairs and systems
// with few matches are worth most; a pair whose winner is certain is worth nothing.
//
// So that systems without a single match can be planned for too, strengths have a normal prior about the mean
// of all (prior_sd rating points). Planning several matches adds each one's information before the next is
// chosen, which spreads them.

#include <cstdint>
#include <string>
#include <vector>

#include "eval/ratings/strengths.h"

namespace qlora {

struct PlanOptions {
  ModelOptions model;     // its interval and its anchors are not used
  double prior_sd = 400;  // rating points
  int64_t count = 10;     // matches to plan
};

struct PlannedMatch {
  std::string first, second;  // `first` is to be shown first
  double bits = 0;            // expected information of this match, after those before it
  double first_wins = 0, tie = 0, second_wins = 0;  // what the model expects
  int64_t judged = 0, judged_other_order = 0;       // prompts judged so far in this order and the other
};

struct JudgingPlan {
  std::vector<PlannedMatch> matches;  // in the order of judging
  // Standard deviation of the difference of two strengths, in rating points, mean over all pairs: before, and
  // expected after the planned matches, as if matches were independent.
  double before = 0, after = 0;
};

// `more` are systems without matches. Throws Error(usage) for a system named twice and for options out of
// range.
JudgingPlan plan_judging(const Matches&, const std::vector<std::string>& more, const PlanOptions&);

}  // namespace qlora
