#include "eval/ratings/judging_plan.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/check.h"

namespace qlora {

namespace {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;
using Index = Eigen::Index;

// Every ordered pair once, without an outcome: what could be judged next. Several judges: the first one's.
std::vector<Match> all_pairs(size_t systems) {
  std::vector<Match> pairs;
  for (size_t a = 0; a < systems; ++a)
    for (size_t b = 0; b < systems; ++b)
      if (a != b) pairs.push_back({static_cast<int32_t>(a), static_cast<int32_t>(b), Outcome::tie});
  return pairs;
}

struct Candidate {
  Match pair;
  Matrix directions;  // [parameters, 1 or 2]: what a match of the pair tells of
  Matrix fisher;      // its information about them
  PerOutcome expected;
};

Candidate candidate(const Design& design, size_t cell, const Match& pair, const std::vector<double>& x) {
  Candidate out;
  out.pair = pair;
  bool ties = design.tie >= 0;
  out.directions = Matrix::Zero(static_cast<Index>(design.parameters), ties ? 2 : 1);
  const Cell& c = design.cells[cell];
  out.directions(c.first, 0) = 1;
  out.directions(c.second, 0) = -1;
  if (c.position >= 0) out.directions(c.position, 0) = 1;
  double d = difference(design, c, x), t = ties ? x[static_cast<size_t>(design.tie)] : 0;
  out.expected = outcome_probabilities(design.model, d, t);
  PairTerms terms = pair_terms(design.model, out.expected, d, t);
  out.fisher = Matrix::Constant(1, 1, -terms.dd);
  if (ties) {
    out.directions(design.tie, 1) = 1;
    out.fisher.resize(2, 2);
    out.fisher << -terms.dd, -terms.dt, -terms.dt, -terms.tt;
  }
  return out;
}

double bits_of(const Candidate& c, const Matrix& covariance) {
  Matrix seen = c.directions.transpose() * covariance * c.directions;
  return 0.5 * std::log2((Matrix::Identity(seen.rows(), seen.cols()) + c.fisher * seen).determinant());
}

// Woodbury: (V^-1 + B F B')^-1.
Matrix after_match(const Candidate& c, const Matrix& v) {
  Matrix vb = v * c.directions, seen = c.directions.transpose() * vb;
  Matrix inner = (Matrix::Identity(seen.rows(), seen.cols()) + c.fisher * seen).inverse() * c.fisher;
  return v - vb * inner * vb.transpose();
}

double mean_deviation(const Matrix& v, size_t systems) {
  double sum = 0;
  auto n = static_cast<Index>(systems);
  for (Index a = 0; a < n; ++a)
    for (Index b = 0; b < a; ++b) sum += std::sqrt(std::max(0.0, v(a, a) + v(b, b) - 2 * v(a, b)));
  return sum / static_cast<double>(n * (n - 1) / 2);
}

int64_t prompts_judged(const Matches& matches, int32_t first, int32_t second) {
  std::set<int32_t> prompts;
  int64_t unknown = 0;
  for (const Match& m : matches.matches) {
    if (m.first != first || m.second != second) continue;
    if (m.prompt >= 0) prompts.insert(m.prompt);
    unknown += m.prompt < 0 ? 1 : 0;
  }
  return static_cast<int64_t>(prompts.size()) + unknown;
}

void check_plan(const std::vector<std::string>& systems, const PlanOptions& o) {
  QLORA_CHECK(systems.size() >= 2, usage, "planning needs at least two systems");
  std::set<std::string> seen;
  for (const std::string& system : systems)
    QLORA_CHECK(seen.insert(system).second, usage,
                "{} has matches already, or is named twice; a new system has none", system);
  QLORA_CHECK(o.count >= 1 && o.count <= 100'000, usage, "1 to 100,000 matches can be planned, not {}",
              o.count);
  QLORA_CHECK(std::isfinite(o.prior_sd) && o.prior_sd > 0, usage,
              "the prior's standard deviation must be above 0, not {}", o.prior_sd);
  QLORA_CHECK(!o.model.length, usage, "a plan knows no lengths of answers that are still to be judged");
}

}  // namespace

JudgingPlan plan_judging(const Matches& judged, const std::vector<std::string>& more,
                         const PlanOptions& options) {
  std::vector<std::string> systems = judged.systems;
  systems.insert(systems.end(), more.begin(), more.end());
  check_plan(systems, options);
  if (!judged.matches.empty()) check_matches(systems, judged.matches);

  // The pairs to choose from are cells of the same design, with no weight.
  std::vector<Match> matches = judged.matches;
  std::vector<Match> pairs = all_pairs(systems.size());
  matches.insert(matches.end(), pairs.begin(), pairs.end());
  size_t judges = std::max<size_t>(judged.judges.size(), 1);
  Design design =
      make_design(options.model.model, matches, systems.size(), judges, options.model.position, false);
  std::vector<PerOutcome> weights(design.cells.size(), PerOutcome{});
  for (size_t i = 0; i < judged.matches.size(); ++i)
    weights[static_cast<size_t>(design.cell_of_match[i])][static_cast<size_t>(matches[i].outcome)] += 1;
  if (design.tie >= 0)  // a tenth of a match of each kind, so that t exists before any has been judged
    for (double& w : weights[static_cast<size_t>(design.cell_of_match[judged.matches.size()])]) w += 0.1;

  double unit = options.model.scale / std::log(options.model.base);
  double ridge = unit * unit / (options.prior_sd * options.prior_sd);
  Fit known = fit(design, weights, {}, ridge);
  QLORA_CHECK(known.converged, data, "the judgments so far could not be fitted, even with a prior");
  Square flat = inverse_information(design, weights, known.parameters, ridge);
  auto size = static_cast<Index>(design.parameters);
  Matrix v = Eigen::Map<const Matrix>(flat.data(), size, size);

  std::vector<Candidate> candidates;
  for (size_t i = 0; i < pairs.size(); ++i)
    candidates.push_back(candidate(design,
                                   static_cast<size_t>(design.cell_of_match[judged.matches.size() + i]),
                                   pairs[i], known.parameters));
  JudgingPlan plan;
  plan.before = unit * mean_deviation(v, systems.size());
  for (int64_t i = 0; i < options.count; ++i) {
    const Candidate* best = nullptr;
    double most = -1;
    for (const Candidate& c : candidates) {
      double bits = bits_of(c, v);
      if (bits <= most * (1 + 1e-9)) continue;  // equal ones: the first
      most = bits;
      best = &c;
    }
    PlannedMatch next;
    next.first = systems[static_cast<size_t>(best->pair.first)];
    next.second = systems[static_cast<size_t>(best->pair.second)];
    next.bits = most;
    next.first_wins = best->expected[2];
    next.tie = best->expected[1];
    next.second_wins = best->expected[0];
    next.judged = prompts_judged(judged, best->pair.first, best->pair.second);
    next.judged_other_order = prompts_judged(judged, best->pair.second, best->pair.first);
    plan.matches.push_back(next);
    v = after_match(*best, v);
  }
  plan.after = unit * mean_deviation(v, systems.size());
  return plan;
}

}  // namespace qlora
