#pragma once
// Does a judge's verdict depend on which answer it saw first? For every judge: how often the one shown first
// wins, and what happens to a verdict when the same two answers are shown in the other order.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/agreement/cluster_bootstrap.h"
#include "eval/judge/judgments.h"

namespace qlora {

struct JudgeBias {
  std::string judge;
  int64_t votes = 0, invalid = 0;  // of a known order
  int64_t order_unknown = 0;       // left out of everything below
  Estimate first, second, tie;     // parts of the valid votes

  // Pairs of answers with a valid verdict in both orders (of several raters: their majority).
  int64_t swaps = 0;
  Estimate consistent;    // the same verdict in both
  Estimate first_biased;  // both times the one shown first
  Estimate second_biased;
  Estimate one_tie;  // a tie in one order, a winner in the other
  // Agreement of the two orders as if of two raters, the one who sees a system first and the one who sees it
  // second. Every pair counts from the views of both its systems, so that nothing depends on their names.
  Estimate kappa, kappa_quadratic, alpha_nominal, alpha_interval;
};

// One for every judge, in order of appearance. Throws Error(data) when no vote is on two answers.
std::vector<JudgeBias> judge_bias(std::span<const JudgmentFile>, const BootstrapOptions& = {});

}  // namespace qlora
