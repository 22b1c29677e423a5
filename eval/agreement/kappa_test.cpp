// Agreement against scikit-learn, statsmodels and krippendorff; and the bootstrap.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/parallel.h"
#include "core/base/test_data.h"
#include "eval/agreement/cluster_bootstrap.h"
#include "eval/agreement/kappa.h"

using namespace qlora;

namespace {

// null = undefined.
void check_equal(const std::optional<double>& ours, const Json& expected) {
  REQUIRE(ours.has_value() == !expected.is_null());
  if (ours) CHECK(std::abs(*ours - expected.get<double>()) < 1e-9);
}

Json goldens(const char* file) {
  const Path path = test::goldens() / "metrics" / file;
  return parse_json(read_file(path), path.string());
}

}  // namespace

TEST_CASE("Cohen's kappa equals scikit-learn's", "[golden]") {
  if (test::missing(test::goldens() / "metrics/agreement.json")) return;
  const Json all = goldens("agreement.json");
  CHECK(all["cohen"].size() == 7);
  for (const Json& c : all["cohen"]) {
    INFO(c["name"]);
    const Json& labels = c["labels"];
    CategoryTable table(static_cast<int>(labels.size()));
    auto index = [&](const Json& label) {
      return static_cast<int>(std::find(labels.begin(), labels.end(), label) - labels.begin());
    };
    for (size_t i = 0; i < c["a"].size(); ++i) table.at(index(c["a"][i]), index(c["b"][i])) += 1;
    for (int i = 0; i < table.size; ++i)
      for (int j = 0; j < table.size; ++j) CHECK(table.at(i, j) == c["confusion_rows_a"][i][j].get<double>());
    check_equal(cohen_kappa(table), c["kappa"]);
    check_equal(cohen_kappa(table, KappaWeights::linear), c["kappa_linear"]);
    check_equal(cohen_kappa(table, KappaWeights::quadratic), c["kappa_quadratic"]);
  }
}

TEST_CASE("Fleiss' kappa equals statsmodels'", "[golden]") {
  if (test::missing(test::goldens() / "metrics/agreement.json")) return;
  const Json all = goldens("agreement.json");
  CHECK(all["fleiss"].size() == 5);
  for (const Json& c : all["fleiss"]) {
    INFO(c["name"]);
    const Json& table = c["table_items_by_category"];
    FleissSums sums(static_cast<int>(table[0].size()));
    for (const Json& item : table) sums.add(item.get<std::vector<int>>());
    check_equal(fleiss_kappa(sums), c["fleiss"]);
  }
}

TEST_CASE("Krippendorff's alpha equals that of krippendorff with missing ratings", "[golden]") {
  if (test::missing(test::goldens() / "metrics/agreement.json")) return;
  const Json all = goldens("agreement.json");
  CHECK(all["krippendorff"].size() == 8);
  for (const Json& c : all["krippendorff"]) {
    INFO(c["name"]);
    const Json& raters = c["reliability_data_raters_by_units"];
    std::set<double> known;
    for (const Json& rater : raters)
      for (const Json& rating : rater)
        if (!rating.is_null()) known.insert(rating.get<double>());
    const std::vector<double> values(known.begin(), known.end());
    CategoryTable coincidences(static_cast<int>(values.size()));
    for (size_t unit = 0; unit < raters[0].size(); ++unit) {
      std::vector<int> ratings;
      for (const Json& rater : raters)
        if (!rater[unit].is_null())
          ratings.push_back(static_cast<int>(
              std::lower_bound(values.begin(), values.end(), rater[unit].get<double>()) - values.begin()));
      add_coincidences(coincidences, ratings);
    }
    check_equal(krippendorff_alpha(coincidences, values, AlphaDistance::nominal), c["nominal"]);
    check_equal(krippendorff_alpha(coincidences, values, AlphaDistance::ordinal), c["ordinal"]);
    check_equal(krippendorff_alpha(coincidences, values, AlphaDistance::interval), c["interval"]);
  }
}

TEST_CASE("agreement is one for equal ratings and unmoved by who is called first") {
  CategoryTable table(3), transposed(3), diagonal(3);
  int value = 1;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j, value = value * 5 % 17) {
      table.at(i, j) = value;
      transposed.at(j, i) = value;
      if (i == j) diagonal.at(i, j) = value;
    }
  for (KappaWeights weights : {KappaWeights::none, KappaWeights::linear, KappaWeights::quadratic}) {
    CHECK(cohen_kappa(diagonal, weights) == 1.0);
    CHECK(std::abs(*cohen_kappa(table, weights) - *cohen_kappa(transposed, weights)) < 1e-12);
  }
  CHECK(raw_agreement(diagonal) == 1.0);
  CHECK_FALSE(raw_agreement(CategoryTable(3)).has_value());
  CHECK_FALSE(cohen_kappa(CategoryTable(3)).has_value());
  CHECK_FALSE(fleiss_kappa(FleissSums(3)).has_value());
  CHECK_THROWS_AS(FleissSums(2).add(std::vector<int>{1, 0}), Error);
}

TEST_CASE("the bootstrap depends on its seed alone and covers the mean of clusters") {
  // The mean of 40 clusters with standard deviation 1: 95% within +- 1.96 / sqrt(40).
  std::vector<double> values;
  for (int i = 0; i < 40; ++i) values.push_back((i % 2 == 0 ? 1.0 : -1.0) + 5 + 1e-3 * (i - 19.5));
  auto mean = [&](std::span<const int32_t> weights) {
    double sum = 0, count = 0;
    for (size_t c = 0; c < values.size(); ++c) {
      sum += weights[c] * values[c];
      count += weights[c];
    }
    return std::vector<std::optional<double>>{sum / count, std::nullopt};
  };
  BootstrapOptions options;
  options.resamples = 2000;
  const std::vector<Estimate> estimates = cluster_bootstrap(40, options, mean);
  REQUIRE(estimates.size() == 2);
  CHECK(*estimates[0].value == Approx(5));
  CHECK(std::abs(*estimates[0].lo - (5 - 1.96 / std::sqrt(40))) < 0.05);
  CHECK(std::abs(*estimates[0].hi - (5 + 1.96 / std::sqrt(40))) < 0.05);
  CHECK_FALSE(estimates[1].lo.has_value());
  CHECK(estimates[1].undefined == 2000);
  int before = thread_count();
  set_thread_count(before == 1 ? 3 : 1);
  CHECK(cluster_bootstrap(40, options, mean)[0].lo == estimates[0].lo);
  set_thread_count(before);
  options.seed = 1;
  CHECK(cluster_bootstrap(40, options, mean)[0].lo != estimates[0].lo);
  options.resamples = 0;
  CHECK_FALSE(cluster_bootstrap(40, options, mean)[0].lo.has_value());
  options.resamples = 1;
  CHECK_THROWS_AS(cluster_bootstrap(40, options, mean), Error);
}
