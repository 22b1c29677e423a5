#include <catch2/catch.hpp>
#include <cmath>

#include "core/base/check.h"
#include "eval/ratings/pair_model.h"

using namespace qlora;

namespace {

constexpr RatingModel kModels[] = {RatingModel::bt, RatingModel::rao_kupper, RatingModel::davidson};
constexpr Outcome kOutcomes[] = {Outcome::second_wins, Outcome::tie, Outcome::first_wins};

}  // namespace

TEST_CASE("outcomes of a match have probabilities that sum to one") {
  for (RatingModel model : kModels)
    for (double d : {-50.0, -3.0, 0.0, 0.7, 50.0})
      for (double t : {0.01, 0.4, 3.0}) {
        PerOutcome p = outcome_probabilities(model, d, t), other = outcome_probabilities(model, -d, t);
        INFO(rating_model_name(model) << " d " << d << " t " << t);
        CHECK(p[0] + p[1] + p[2] == Approx(1).epsilon(1e-12));
        CHECK(p[2] == Approx(other[0]).epsilon(1e-12));  // told from the other side
        CHECK(p[1] == Approx(other[1]).epsilon(1e-12));
        for (Outcome outcome : kOutcomes) {
          double probability = p[static_cast<size_t>(outcome)];
          if (model == RatingModel::bt && outcome == Outcome::tie) continue;  // not an outcome of its own
          CHECK(std::exp(outcome_terms(model, outcome, d, t).log_p) == Approx(probability).margin(1e-15));
        }
      }
  CHECK(outcome_terms(RatingModel::bt, Outcome::tie, 1.5, 0).log_p ==
        Approx(0.5 * (outcome_terms(RatingModel::bt, Outcome::first_wins, 1.5, 0).log_p +
                      outcome_terms(RatingModel::bt, Outcome::second_wins, 1.5, 0).log_p)));
}

TEST_CASE("derivatives of a match agree with differences") {
  constexpr double h = 1e-5;
  for (RatingModel model : kModels)
    for (Outcome outcome : kOutcomes)
      for (double d : {-2.5, -0.3, 0.0, 1.9})
        for (double t : {0.2, 1.1}) {
          auto at = [&](double x, double y) { return outcome_terms(model, outcome, x, y); };
          PairTerms here = at(d, t);
          INFO(rating_model_name(model)
               << " outcome " << static_cast<int>(outcome) << " d " << d << " t " << t);
          CHECK(here.d == Approx((at(d + h, t).log_p - at(d - h, t).log_p) / (2 * h)).margin(1e-8));
          CHECK(here.t == Approx((at(d, t + h).log_p - at(d, t - h).log_p) / (2 * h)).margin(1e-8));
          CHECK(here.dd == Approx((at(d + h, t).d - at(d - h, t).d) / (2 * h)).margin(1e-8));
          CHECK(here.dt == Approx((at(d, t + h).d - at(d, t - h).d) / (2 * h)).margin(1e-8));
          CHECK(here.tt == Approx((at(d, t + h).t - at(d, t - h).t) / (2 * h)).margin(1e-8));
        }
}

TEST_CASE("weights of outcomes add up") {
  PerOutcome weight = {2, 0.5, 3};
  for (RatingModel model : kModels) {
    PairTerms sum = pair_terms(model, weight, 0.8, 0.6), expected;
    for (Outcome outcome : kOutcomes) {
      PairTerms one = outcome_terms(model, outcome, 0.8, 0.6);
      double w = weight[static_cast<size_t>(outcome)];
      expected.log_p += w * one.log_p;
      expected.d += w * one.d;
      expected.tt += w * one.tt;
    }
    CHECK(sum.log_p == Approx(expected.log_p));
    CHECK(sum.d == Approx(expected.d));
    CHECK(sum.tt == Approx(expected.tt).margin(1e-14));
    CHECK(rating_model_from(rating_model_name(model)) == model);
  }
  CHECK_THROWS_WITH(rating_model_from("davdison"), Catch::Contains("did you mean `davidson`"));
}
