// Whether 95% intervals hold what they say, over many tournaments whose prompts suit some systems more than
// others. The truth is what the same estimator gives on 200,000 prompts: not the strengths that the
// simulation starts from, which prompts of different kinds attenuate.
#include <catch2/catch.hpp>
#include <vector>

#include "core/base/parallel.h"
#include "eval/ratings/simulated_tournament.h"
#include "eval/ratings/strengths.h"

using namespace qlora;

namespace {

constexpr int64_t kTournaments = 1000;

ModelOptions options_for(RatingModel model, Interval interval, Cluster cluster) {
  ModelOptions options;
  options.model = model;
  options.position = Position::shared;
  options.interval = interval;
  options.cluster = cluster;
  options.draws = interval == Interval::bootstrap ? 200 : 0;
  return options;
}

// Ratings, in the order of systems s0, s1, ..., of 200,000 prompts.
std::vector<double> endless(RatingModel model) {
  constexpr uint64_t kParts = 2500;
  constexpr uint64_t kFirst = 1'000'000;  // no tournament of the test is among them
  Design design;
  std::vector<PerOutcome> weights;
  for (uint64_t part = 0; part < kParts; ++part) {
    Matches some = simulated_tournament({}, kFirst + part);
    if (part == 0) {
      design = make_design(model, some.matches, some.systems.size(), 1, Position::shared, false);
      weights = count_outcomes(design, some.matches);
      continue;
    }
    // All tournaments list the same pairs in the same order.
    for (size_t i = 0; i < some.matches.size(); ++i)
      weights[static_cast<size_t>(design.cell_of_match[i])][static_cast<size_t>(some.matches[i].outcome)] +=
          1;
  }
  Fit found = fit(design, weights);
  REQUIRE(found.converged);
  std::vector<double> ratings;
  for (size_t s = 0; s < design.systems; ++s)
    ratings.push_back(1000 + 173.71779276130073 * found.parameters[s]);
  return ratings;
}

// In what part of the tournaments and systems the interval holds the truth.
double coverage(const std::vector<double>& truth, const ModelOptions& options,
                int64_t tournaments = kTournaments) {
  std::vector<int> held(static_cast<size_t>(tournaments));
  parallel_for(tournaments, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ModelReport report = compute_strengths(simulated_tournament({}, static_cast<uint64_t>(i)), options);
      for (const Rating& r : report.ratings) {
        double there = truth[static_cast<size_t>(r.system[1] - '0')];
        held[static_cast<size_t>(i)] += *r.ci_lo <= there && there <= *r.ci_hi ? 1 : 0;
      }
    }
  });
  double sum = 0;
  for (int count : held) sum += count;
  return sum / static_cast<double>(tournaments * static_cast<int64_t>(truth.size()));
}

}  // namespace

TEST_CASE("sandwich intervals over prompts cover and those over matches do not") {
  std::vector<double> truth = endless(RatingModel::bt);
  // Prompts of different kinds attenuate: the best and the worst of the simulation are 304 points apart.
  CHECK(truth.front() - truth.back() < 0.9 * 304);
  double prompts = coverage(truth, options_for(RatingModel::bt, Interval::sandwich, Cluster::prompt));
  double matches = coverage(truth, options_for(RatingModel::bt, Interval::sandwich, Cluster::match));
  CAPTURE(prompts, matches);
  CHECK(prompts > 0.92);
  CHECK(prompts < 0.97);
  CHECK(matches < 0.88);
  CHECK(matches > 0.5);
}

TEST_CASE("bootstrap intervals over prompts cover and those over matches do not", "[slow]") {
  for (RatingModel model : {RatingModel::bt, RatingModel::davidson}) {
    std::vector<double> truth = endless(model);
    double prompts = coverage(truth, options_for(model, Interval::bootstrap, Cluster::prompt));
    // (so far from what they promise that fewer tournaments show it)
    double matches = coverage(truth, options_for(model, Interval::bootstrap, Cluster::match), kTournaments / 4);
    CAPTURE(rating_model_name(model), prompts, matches);
    CHECK(prompts > 0.92);
    CHECK(prompts < 0.97);
    CHECK(matches < 0.88);
    CHECK(matches > 0.5);
  }
}
