#pragma once
// How far judges agree: the raters of one judge among themselves, two judges on the same answers, and two
// judges on the order of the systems.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/agreement/cluster_bootstrap.h"
#include "eval/judge/judgments.h"

namespace qlora {

// Of several raters of the same answers, shown in the same order.
struct RaterAgreement {
  std::string judge;
  int64_t items = 0;    // answers to one item, shown in one order, with two or more valid votes
  int64_t votes = 0;    // of those
  int64_t invalid = 0;  // votes of that judge without a verdict, left out
  int64_t single = 0;   // such items with one valid vote, left out
  int64_t raters = 0;   // of an item; 0 when it varies (Fleiss' kappa is then absent)
  Estimate raw;         // the part of the pairs of raters that agree
  Estimate fleiss;
  Estimate alpha_nominal, alpha_ordinal, alpha_interval;
};

// Between two judges: a majority stands for several raters.
struct JudgeAgreement {
  std::string judge, other;
  // same: both saw the answers in the same order; opposite: in opposite orders; unknown: of one of them the
  // order is unknown, and all its votes on the answers count together.
  std::string order;
  int64_t items = 0;    // with a verdict of both
  int64_t invalid = 0;  // where one of the two has none
  Estimate raw, kappa, kappa_linear, kappa_quadratic;
  Estimate fleiss;  // of the two as interchangeable raters
  Estimate alpha_nominal, alpha_ordinal, alpha_interval;
};

// Between two judges, of the systems that both judged, by each system's (wins + ties / 2) / games.
struct SystemAgreement {
  std::string judge, other;
  int64_t systems = 0;
  Estimate kendall_tau_b, spearman_rho, pearson;
};

struct AgreementReport {
  std::vector<RaterAgreement> raters;    // judges with several raters
  std::vector<JudgeAgreement> judges;    // every two judges with items in common
  std::vector<SystemAgreement> systems;  // every two judges with two or more systems in common
  bool empty() const { return raters.empty() && judges.empty(); }
};

// Throws Error(data) when no vote is on two answers.
AgreementReport agreement(std::span<const JudgmentFile>, const BootstrapOptions& = {});

}  // namespace qlora
