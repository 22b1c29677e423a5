#include "eval/ratings/strengths.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/check.h"
#include "core/base/names.h"
#include "eval/ratings/spread.h"
#include "eval/ratings/win_graph.h"

namespace qlora {

namespace {

struct Problem {
  const Matches& all;
  const ModelOptions& options;
  std::vector<Match> matches;  // those that count
  std::vector<int32_t> anchored;
  std::vector<std::optional<double>> fixed;  // strengths, natural units
  double unit;                               // rating points of one
};

void check_options(const ModelOptions& o) {
  QLORA_CHECK(std::isfinite(o.initial), usage, "the mean rating must be a number, not {}", o.initial);
  QLORA_CHECK(o.base > 1 && o.scale > 0, usage, "the base must exceed 1 and the scale 0 (they are {} and {})",
              o.base, o.scale);
  QLORA_CHECK(!o.drop_ties || !has_tie_parameter(o.model), usage,
              "{} is a model of ties: they cannot be dropped", rating_model_name(o.model));
  QLORA_CHECK(o.interval != Interval::bootstrap || (o.draws >= 2 && o.draws <= 1'000'000), usage,
              "a bootstrap needs 2 to 1,000,000 draws, not {}", o.draws);
  QLORA_CHECK(o.draws >= 0 && o.draws <= 1'000'000, usage, "draws must be 0 to 1,000,000, not {}", o.draws);
}

void read_anchors(Problem& problem) {
  problem.fixed.resize(problem.all.systems.size());
  for (const Anchor& anchor : problem.options.anchors) {
    auto place = std::find(problem.all.systems.begin(), problem.all.systems.end(), anchor.system);
    QLORA_CHECK(place != problem.all.systems.end(), usage, "{}",
                unknown_name("system", anchor.system, problem.all.systems));
    auto s = static_cast<size_t>(place - problem.all.systems.begin());
    double strength = (anchor.rating - problem.options.initial) / problem.unit;
    QLORA_CHECK(std::fabs(strength) < 30, usage, "the anchor {} = {} is too far from {}", anchor.system,
                anchor.rating, problem.options.initial);
    QLORA_CHECK(!problem.fixed[s], usage, "two anchors for {}", anchor.system);
    problem.fixed[s] = strength;
    problem.anchored.push_back(static_cast<int32_t>(s));
  }
}

void check_ties(const Problem& problem) {
  if (!has_tie_parameter(problem.options.model)) return;
  int64_t ties = std::count_if(problem.matches.begin(), problem.matches.end(),
                               [](const Match& m) { return m.outcome == Outcome::tie; });
  auto all = static_cast<int64_t>(problem.matches.size());
  QLORA_CHECK(ties > 0 && ties < all, usage,
              "{} needs ties and winners, but {} of {} matches are ties; use "
              "--model bt",
              rating_model_name(problem.options.model), ties, all);
}

// The likelihood has no maximum although the win graph is connected: what runs away, in words.
[[noreturn]] void explain(const Problem& problem, const Design& design, const std::vector<double>& x) {
  constexpr double kFar = 8;
  std::vector<std::string> causes;
  for (int32_t i = 0; i < design.positions; ++i)
    if (std::fabs(x[static_cast<size_t>(design.position_begin + i)]) > kFar)
      causes.push_back(
          fmt::format("being shown first explains every outcome{} (--position none)",
                      design.positions > 1 ? " of judge " + problem.all.judges[static_cast<size_t>(i)] : ""));
  if (design.length >= 0 && std::fabs(x[static_cast<size_t>(design.length)]) > kFar)
    causes.emplace_back("the lengths of the answers explain every outcome (leave --answers away)");
  std::vector<size_t> order(design.systems);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return x[a] > x[b]; });
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    if (x[order[i]] - x[order[i + 1]] < kFar) continue;
    std::vector<std::string> upper;
    for (size_t j = 0; j <= i; ++j) upper.push_back(problem.all.systems[order[j]]);
    causes.push_back(fmt::format("{} stand{} above the rest without bound", fmt::join(upper, ", "),
                                 upper.size() == 1 ? "s" : ""));
  }
  fail(ErrorKind::data,
       "{} has no finite maximum of the likelihood on these {} matches: {}. Judge more, use --model bt "
       "without "
       "further terms, or --model elo",
       rating_model_name(problem.options.model), problem.matches.size(),
       causes.empty() ? std::string("a parameter runs away") : fmt::format("{}", fmt::join(causes, "; ")));
}

std::vector<Term> terms_of(const Problem& problem, const Design& design, const std::vector<double>& x,
                           const Spread& spread) {
  std::vector<Term> terms;
  auto add = [&](const std::string& name, const std::string& unit, int32_t parameter, double by) {
    auto p = static_cast<size_t>(parameter);
    Term term{name, unit, x[p] * by, {}, {}, {}};
    if (!spread.se.empty()) {
      term.se = spread.se[p] * by;
      term.ci_lo = spread.lo[p] * by;
      term.ci_hi = spread.hi[p] * by;
    }
    terms.push_back(term);
  };
  for (int32_t i = 0; i < design.positions; ++i)
    add(design.positions == 1 ? "position" : "position of " + problem.all.judges[static_cast<size_t>(i)],
        "points", design.position_begin + i, problem.unit);
  if (design.length >= 0) add("length", "points per standard deviation", design.length, problem.unit);
  if (design.model == RatingModel::rao_kupper) add("tie threshold", "points", design.tie, problem.unit);
  if (design.model == RatingModel::davidson) {
    add("tie weight", "", design.tie, 1);
    Term& nu = terms.back();
    nu.value = std::exp(nu.value);
    if (nu.se) nu = {nu.name, nu.unit, nu.value, *nu.se * nu.value, std::exp(*nu.ci_lo), std::exp(*nu.ci_hi)};
  }
  return terms;
}

std::string describe(const ModelOptions& o, int64_t degenerate) {
  std::string units = o.cluster == Cluster::prompt ? "prompts" : "single matches";
  if (o.interval == Interval::sandwich)
    return fmt::format("95%, cluster-robust sandwich over {}{}", units,
                       o.draws > 0 ? fmt::format(", ranks of {} normal draws", o.draws) : "");
  std::string text = fmt::format("95%, {} drawn again {} times", units, o.draws);
  if (degenerate > 0) text += fmt::format(", {} of them without finite strengths", degenerate);
  return text;
}

void add_spread(const Spread& spread, const Problem& problem, ModelReport& report) {
  const ModelOptions& o = problem.options;
  auto points = [&](double strength) { return o.initial + problem.unit * strength; };
  if (!spread.draws.empty()) {
    std::vector<std::vector<double>> draws = spread.draws;
    for (std::vector<double>& draw : draws) {
      draw.resize(report.ratings.size());  // the strengths stand first
      for (double& value : draw) value = points(value);
    }
    add_draws(report, draws, false);
  }
  for (size_t s = 0; s < report.ratings.size(); ++s) {
    report.ratings[s].se = spread.se[s] * problem.unit;
    report.ratings[s].ci_lo = points(spread.lo[s]);
    report.ratings[s].ci_hi = points(spread.hi[s]);
  }
  report.degenerate_draws = spread.degenerate;
  report.ci_method = describe(o, spread.degenerate);
}

}  // namespace

Interval interval_from(const std::string& name) {
  if (name == "none") return Interval::none;
  if (name == "bootstrap") return Interval::bootstrap;
  if (name == "sandwich") return Interval::sandwich;
  fail(ErrorKind::usage, "{}",
       unknown_name("interval", name, std::vector<std::string>{"none", "bootstrap", "sandwich"}));
}

ModelReport compute_strengths(const Matches& all, const ModelOptions& options) {
  check_options(options);
  check_matches(all.systems, all.matches);
  Problem problem{all, options, {}, {}, {}, options.scale / std::log(options.base)};
  for (const Match& m : all.matches)
    if (!options.drop_ties || m.outcome != Outcome::tie) problem.matches.push_back(m);
  QLORA_CHECK(!problem.matches.empty(), data, "all {} matches are ties, and ties are dropped",
              all.matches.size());
  read_anchors(problem);
  check_ties(problem);
  if (options.interval != Interval::none) check_clusters(problem.matches, options.cluster);
  check_win_graph(all.systems, problem.matches, problem.anchored);

  Design design = make_design(options.model, problem.matches, all.systems.size(), all.judges.size(),
                              options.position, options.length, problem.fixed);
  std::vector<PerOutcome> weights = count_outcomes(design, problem.matches);
  Fit best = fit(design, weights);
  if (!best.converged) explain(problem, design, best.parameters);

  ModelReport report;
  report.options = options;
  report.ratings = count_games(all.systems, problem.matches);
  report.matches = static_cast<int64_t>(problem.matches.size());
  report.prompts = count_prompts(problem.matches);
  report.log_likelihood = best.log_likelihood;
  for (size_t s = 0; s < all.systems.size(); ++s) {
    report.ratings[s].rating = options.initial + problem.unit * best.parameters[s];
    if (s < all.invalid.size()) report.ratings[s].invalid = all.invalid[s];
  }
  Spread spread;
  if (options.interval != Interval::none) {
    Clusters clusters = clusters_of(problem.matches, options.cluster);
    QLORA_CHECK(clusters.count >= 2, usage, "an interval needs at least two {}, not {}",
                options.cluster == Cluster::prompt ? "prompts" : "matches", clusters.count);
    spread = options.interval == Interval::bootstrap
                 ? bootstrap_spread(design, problem.matches, clusters, best, options.draws, options.seed)
                 : sandwich_spread(design, problem.matches, clusters, best, options.draws, options.seed);
    add_spread(spread, problem, report);
  }
  report.terms = terms_of(problem, design, best.parameters, spread);
  sort_best_first(report);
  return report;
}

}  // namespace qlora
