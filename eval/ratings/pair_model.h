#pragma once
// How likely the outcomes of one match are, given how far apart its two systems are. d is the difference in
// strength of the first over the second, in natural units (a log odds), with whatever the position and the
// lengths of the answers add; t is the model's own parameter for ties. s(x) = 1 / (1 + exp(-x)).
//
//   bt          Bradley & Terry 1952: P(first) = s(d), P(second) = s(-d). A tie is half of each.
//   rao_kupper  Rao & Kupper 1967: P(first) = s(d - t), P(second) = s(-d - t), the rest is a tie; t > 0 is
//   the
//               difference that a judge cannot see.
//   davidson    Davidson 1970: P(first) : P(tie) : P(second) = exp(d/2) : exp(t) : exp(-d/2). Given that
//   there
//               is a winner, the log odds are d; a tie has no part in it, so that strengths lie further apart
//               than with the other two. Across models compare probabilities, not strengths.
//
// All three have a concave log-likelihood in (d, t).

#include <array>
#include <string>

#include "eval/ratings/match.h"

namespace qlora {

enum class RatingModel { bt, rao_kupper, davidson };
RatingModel rating_model_from(const std::string& name);  // bt | rao-kupper | davidson; throws Error(usage)
std::string rating_model_name(RatingModel);
bool has_tie_parameter(RatingModel);

// A number for each Outcome, in its order: second wins, tie, first wins.
using PerOutcome = std::array<double, 3>;

PerOutcome outcome_probabilities(RatingModel, double d, double t);

// The weighted log-likelihood of a match and its derivatives.
struct PairTerms {
  double log_p = 0, d = 0, t = 0, dd = 0, dt = 0, tt = 0;
};
PairTerms pair_terms(RatingModel, const PerOutcome& weight, double d, double t);
// The derivatives for one outcome.
PairTerms outcome_terms(RatingModel, Outcome, double d, double t);

}  // namespace qlora
