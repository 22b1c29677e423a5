#include <catch2/catch.hpp>

#include <cmath>

#include "core/base/error.h"
#include "eval/metrics/classification.h"
#include "eval/metrics/correlation.h"
#include "eval/metrics/distributions.h"
#include "eval/metrics/porter_stemmer.h"
#include "eval/metrics/rouge.h"

using namespace qlora;

TEST_CASE("classification scores of a table worked out by hand") {
  // true 1: three right and one taken for 0; true 0: two right and two taken for 1
  const std::vector<int64_t> truth = {1, 1, 1, 1, 0, 0, 0, 0}, guess = {1, 1, 1, 0, 0, 0, 1, 1};
  const Confusion c = confusion(truth, guess);
  CHECK(c.counts == std::vector<std::vector<int64_t>>{{2, 2}, {1, 3}});
  CHECK(accuracy(c) == Approx(5.0 / 8));
  const PrecisionRecall one = precision_recall(c, 1);
  CHECK(one.precision == Approx(3.0 / 5));
  CHECK(one.recall == Approx(3.0 / 4));
  CHECK(one.f1 == Approx(2.0 / 3));
  CHECK(f1_macro(c) == Approx((2.0 / 3 + 4.0 / 7) / 2));
  CHECK(matthews_correlation(c) == Approx((3 * 2 - 2 * 1) / std::sqrt(5.0 * 4 * 4 * 3)));
  CHECK(precision_recall(c, 7).f1 == 0);
}

TEST_CASE("classification of nothing is zero and of lists of two lengths an error") {
  const Confusion none = confusion({}, {});
  CHECK(accuracy(none) == 0);
  CHECK(matthews_correlation(none) == 0);
  const std::vector<int64_t> two = {0, 1}, one = {0};
  CHECK_THROWS_AS(confusion(two, one), Error);
}

TEST_CASE("correlations of lists worked out by hand") {
  const std::vector<double> x = {1, 2, 3, 4}, y = {1, 3, 2, 4};
  CHECK(*pearson(x, y).value == Approx(0.8));
  CHECK(*spearman(x, y).value == Approx(0.8));
  // Equal values share the mean of their ranks: 3.5, 1, 3.5, 2.
  CHECK(*spearman(std::vector<double>{3, 1, 3, 2}, std::vector<double>{7, 2, 7, 4}).value == Approx(1));
  CHECK(*kendall(x, y).value == Approx(2.0 / 3));
  CHECK(*kendall(x, y).p == Approx(2 * (1.0 + 3) / 24));  // 0 or 1 inversions of 24 orders
  CHECK(*pearson(x, y).p == Approx(0.2));                 // Student's t with 2 degrees: 1 - |r|
  for (double level : {2.0, 0.1}) {                       // the mean of 0.1, 0.1, 0.1 is not 0.1
    const std::vector<double> flat(3, level), slope = {1, 2, 3};
    for (auto correlation : {pearson, spearman, kendall}) {
      CHECK_FALSE(correlation(slope, flat).value);
      CHECK_FALSE(correlation(flat, slope).p);
    }
  }
}

TEST_CASE("the incomplete beta function has its closed forms and its symmetry") {
  for (double x : {0.0, 0.01, 0.3, 0.5, 0.9, 1.0}) {
    CHECK(beta_cdf(1, 1, x) == Approx(x).margin(1e-14));
    CHECK(beta_cdf(2, 1, x) == Approx(x * x).margin(1e-14));
    CHECK(beta_cdf(1, 3, x) == Approx(1 - std::pow(1 - x, 3)).margin(1e-14));
    CHECK(beta_cdf(2.5, 7, x) == Approx(1 - beta_cdf(7, 2.5, 1 - x)).margin(1e-13));
  }
}

TEST_CASE("stems of the examples of Porter's paper and of the departures") {
  const std::vector<std::pair<std::string, std::string>> stems = {
      {"caresses", "caress"},    {"ponies", "poni"},       {"cats", "cat"},         {"feed", "feed"},
      {"agreed", "agre"},        {"plastered", "plaster"}, {"hopping", "hop"},      {"falling", "fall"},
      {"filing", "file"},        {"happy", "happi"},       {"relational", "relat"}, {"rational", "ration"},
      {"triplicate", "triplic"}, {"revival", "reviv"},     {"adoption", "adopt"},   {"rate", "rate"},
      {"controll", "control"},   {"roll", "roll"},         {"sky", "sky"},          {"skies", "sky"},
      {"ties", "tie"},           {"died", "die"},          {"enjoy", "enjoy"},      {"is", "is"},
      {"yyyy", "yyyi"}};
  for (const auto& [word, stem] : stems) CHECK(porter_stem(word) == stem);
}

TEST_CASE("ROUGE counts n-grams and subsequences") {
  const RougeScores s = rouge("the cat sat on the mat", "the the cat on a mat", false);
  CHECK(s.rouge1.recall == Approx(5.0 / 6));  // the twice, cat, on, mat
  CHECK(s.rouge2.precision == Approx(1.0 / 5));
  CHECK(s.rouge_l.f == Approx(4.0 / 6));
  CHECK(rouge("", "a", false).rouge_l_sum.f == 0);
  CHECK(rouge("one", "one", false).rouge2.f == 0);  // no bigram
}

TEST_CASE("the summary level of ROUGE takes the union over sentences") {
  // Lin's example: the reference w1..w5 against "w1 w2 w6 w7 w8" and "w1 w3 w8 w9 w5" has a union of 4
  const RougeScore s = rouge("a b c d e", "a b f g h\na c h i e", false).rouge_l_sum;
  CHECK(s.recall == Approx(4.0 / 5));
  CHECK(s.precision == Approx(4.0 / 10));
}
