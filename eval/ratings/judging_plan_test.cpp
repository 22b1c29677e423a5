#include "eval/ratings/judging_plan.h"

#include <catch2/catch.hpp>
#include <map>

#include "core/base/check.h"
#include "eval/ratings/simulated_tournament.h"

using namespace qlora;
using Catch::Contains;

TEST_CASE("the pair that is known least is judged next") {
  Simulation few;
  few.systems = 4;
  few.prompts = 20;
  Matches all = simulated_tournament(few, 1);
  PlanOptions options;
  options.count = 1;
  JudgingPlan plan = plan_judging(all, {}, options);
  REQUIRE(plan.matches.size() == 1);
  CHECK(plan.after < plan.before);
  CHECK(plan.matches[0].bits > 0);
  CHECK(plan.matches[0].judged == 20);
  CHECK(plan.matches[0].judged_other_order == 20);
  CHECK(plan.matches[0].first_wins + plan.matches[0].tie + plan.matches[0].second_wins == Approx(1));

  // A newcomer is met first, and by more than one opponent.
  options.count = 6;
  JudgingPlan with_new = plan_judging(all, {"new"}, options);
  std::map<std::string, int> met;
  for (const PlannedMatch& m : with_new.matches) {
    CHECK((m.first == "new" || m.second == "new"));
    CHECK(m.judged == 0);
    ++met[m.first == "new" ? m.second : m.first];
  }
  CHECK(met.size() > 1);
  CHECK(with_new.before > plan.before);
  CHECK(with_new.matches[0].bits > 10 * plan.matches[0].bits);
  CHECK(with_new.matches[5].bits < with_new.matches[0].bits);
}

TEST_CASE("information is that of the Fisher matrix") {
  // Two systems, nothing judged, prior of one natural unit: a match has 1/4 of information on a difference
  // whose variance is 2.
  Matches none;
  none.systems = {"a", "b"};
  PlanOptions options;
  options.prior_sd = 400 / std::log(10.0);
  options.count = 1;
  JudgingPlan plan = plan_judging(none, {}, options);
  CHECK(plan.matches[0].bits == Approx(0.5 * std::log2(1 + 0.25 * 2)));
  CHECK(plan.before == Approx(options.prior_sd * std::sqrt(2.0)));
  CHECK(plan.after == Approx(options.prior_sd * std::sqrt(1 / (1 / 2.0 + 0.25))));
  // A decided pair tells less.
  for (int i = 0; i < 30; ++i) none.matches.push_back({0, 1, Outcome::first_wins, i});
  CHECK(plan_judging(none, {}, options).matches[0].bits < 0.1 * plan.matches[0].bits);
  for (RatingModel model : {RatingModel::rao_kupper, RatingModel::davidson}) {
    options.model.model = model;
    CHECK(plan_judging(none, {"c"}, options).matches[0].bits > 0);
  }
}

TEST_CASE("impossible plans are refused") {
  Matches none;
  none.systems = {"a"};
  PlanOptions options;
  CHECK_THROWS_WITH(plan_judging(none, {}, options), Contains("two systems"));
  CHECK_THROWS_WITH(plan_judging(none, {"a"}, options), Contains("named twice"));
  options.count = 0;
  CHECK_THROWS_WITH(plan_judging(none, {"b"}, options), Contains("planned"));
  options.count = 1;
  options.prior_sd = 0;
  CHECK_THROWS_WITH(plan_judging(none, {"b"}, options), Contains("deviation"));
}
