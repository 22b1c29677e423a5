#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "eval/metrics/distributions.h"
#include "eval/ratings/paired_tests.h"
#include "eval/ratings/proportion.h"

using namespace qlora;

TEST_CASE("distributions have their known values") {
  CHECK(normal_quantile(0.975) == Approx(1.959963984540054).epsilon(1e-13));
  CHECK(normal_quantile(1e-10) == Approx(-6.361340902404056).epsilon(1e-12));
  CHECK(normal_quantile(0.5) == Approx(0).margin(1e-15));
  CHECK(normal_cdf(normal_quantile(0.3)) == Approx(0.3).epsilon(1e-13));
  CHECK(beta_cdf(1, 1, 0.3) == Approx(0.3).epsilon(1e-13));
  CHECK(beta_cdf(2, 3, 0.4) == Approx(0.5248).epsilon(1e-13));  // 1 - sum of binomials
  CHECK(beta_cdf(500, 700, 0.4) + beta_cdf(700, 500, 0.6) == Approx(1).epsilon(1e-12));
  CHECK(beta_cdf(4, 9, beta_quantile(4, 9, 0.025)) == Approx(0.025).epsilon(1e-12));
  CHECK(student_quantile(0.975, 1) == Approx(12.706204736174698).epsilon(1e-11));  // tan(0.475 pi)
  CHECK(student_quantile(0.975, 24) == Approx(2.0638985616280205).epsilon(1e-11));
  CHECK(student_quantile(0.025, 24) == Approx(-2.0638985616280205).epsilon(1e-11));
  CHECK(student_two_sided(0, 5) == Approx(1));
  CHECK(chi_square_1_above(3.841458820694124) == Approx(0.05).epsilon(1e-12));
  double sum = 0;
  for (int64_t k = 0; k <= 7; ++k) sum += binomial_probability(k, 20, 0.3);
  CHECK(binomial_cdf(7, 20, 0.3) == Approx(sum).epsilon(1e-12));
  CHECK(binomial_cdf(20, 20, 0.3) == 1);
}

TEST_CASE("shares have intervals that stay between nothing and all") {
  for (double n : {1.0, 5.0, 160.0})
    for (double k = 0; k <= n; k += 0.5)
      for (auto method : {wilson_interval, clopper_pearson_interval, agresti_coull_interval}) {
        ShareInterval at = method(k, n, 0.95), other = method(n - k, n, 0.95);
        CHECK(at.lo >= 0);
        CHECK(at.hi <= 1);
        CHECK(at.lo <= k / n);
        CHECK(at.hi >= k / n);
        CHECK(at.lo == Approx(1 - other.hi).margin(1e-9));
      }
}

TEST_CASE("paired tests know equality and order") {
  std::vector<double> x = {1, 2, 3, 4, 5}, y = {2, 4, 3, 6, 8};
  Wilcoxon w = wilcoxon_test(x, y);
  CHECK(w.w == 0);  // never above
  CHECK(paired_t_test(x, y).t < 0);
  CHECK(paired_t_test(y, x).p == Approx(paired_t_test(x, y).p));
  CHECK(mcnemar_test(0, 0).exact_p == 1);
  CHECK(sign_test(0, 0) == 1);
  CHECK(sign_test(5, 5) == Approx(0.0625));
}

TEST_CASE("intervals and tests agree with statsmodels and scipy", "[golden]") {
  Path path = test::goldens() / "metrics/intervals_tests.json";
  if (test::missing(path)) return;
  Json golden = parse_json(read_file(path), path.string());
  auto near = [](double found, const Json& expected) {
    CHECK(found == Approx(expected.get<double>()).margin(1e-9));
  };
  for (const Json& row : golden.at("proportion_intervals")) {
    double k = row.at("k"), n = row.at("n"), level = row.at("level");
    INFO(row.dump());
    auto compare = [&](const char* name, ShareInterval found) {
      near(found.lo, row.at(name)[0]);
      near(found.hi, row.at(name)[1]);
    };
    compare("wilson", wilson_interval(k, n, level));
    compare("clopper_pearson", clopper_pearson_interval(k, n, level));
    compare("agresti_coull", agresti_coull_interval(k, n, level));
    compare("normal", normal_share_interval(k, n, level));
  }
  for (const Json& row : golden.at("mcnemar")) {
    INFO(row.dump());
    McNemar found = mcnemar_test(row.at("b"), row.at("c"));
    near(found.exact_p, row.at("exact_p"));
    near(found.chi2_corrected, row.at("chi2_corrected"));
    near(found.chi2_corrected_p, row.at("chi2_corrected_p"));
  }
  for (const Json& row : golden.at("sign_test"))
    near(sign_test(row.at("k"), row.at("n")), row.at("two_sided_p"));
  for (const Json& row : golden.at("paired")) {
    std::vector<double> x = row.at("x"), y = row.at("y");
    PairedT t = paired_t_test(x, y);
    near(t.t, row.at("paired_t"));
    near(t.p, row.at("paired_t_p"));
    Wilcoxon w = wilcoxon_test(x, y);
    near(w.w, row.at("wilcoxon_w"));
    near(w.p, row.at("wilcoxon_p"));
    near(standard_error(x), row.at("sem_x"));
    near(t95_half_width(x), row.at("t95_half_width_x"));
  }
}
