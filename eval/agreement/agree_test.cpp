// Judges side by side, by hand-made votes.
#include <catch2/catch.hpp>

#include "core/base/check.h"
#include "eval/agreement/agree.h"
#include "eval/agreement/bias.h"
#include "eval/agreement/relative.h"

using namespace qlora;
using Catch::Contains;

namespace {

constexpr Verdict kFirst = Verdict::first_wins, kSecond = Verdict::second_wins, kTie = Verdict::tie,
                  kNone = Verdict::invalid;

Vote vote(const std::string& judge, const std::string& item, const std::string& first,
          const std::string& second, Verdict verdict) {
  Vote v;
  v.judge = judge;
  v.item = item;
  v.first = first;
  v.second = second;
  v.verdict = verdict;
  return v;
}

Vote points(const std::string& item, const std::string& first, const std::string& second, double x,
            double y) {
  Vote v = vote("j", item, first, second, verdict_of(x, y));
  v.points = true;
  v.first_score = x;
  v.second_score = y;
  return v;
}

std::vector<JudgmentFile> files_of(std::vector<Vote> votes) {
  std::vector<JudgmentFile> files(1);
  files[0].votes = std::move(votes);
  return files;
}

const BootstrapOptions kNoInterval{0, 0};

}  // namespace

TEST_CASE("a judge that follows the first place is seen as such") {
  std::vector<Vote> votes;
  for (int i = 0; i < 10; ++i) {
    std::string item = std::to_string(i);
    // 6 items: the first shown wins in both orders. 2: a wins in both. 1: a tie in one order. 1: invalid in
    // one.
    Verdict one = kFirst, two = i < 6 ? kFirst : i < 8 ? kSecond : i == 8 ? kTie : kNone;
    votes.push_back(vote("j", item, "a", "b", one));
    votes.push_back(vote("j", item, "b", "a", two));
  }
  Vote unknown = vote("j", "0", "a", "b", kSecond);
  unknown.order_known = false;
  votes.push_back(unknown);
  const JudgeBias bias = judge_bias(files_of(votes), kNoInterval).at(0);
  CHECK((bias.votes == 20 && bias.invalid == 1 && bias.order_unknown == 1 && bias.swaps == 9));
  CHECK(*bias.first.value == Approx(16.0 / 19));
  CHECK(*bias.second.value == Approx(2.0 / 19));
  CHECK(*bias.tie.value == Approx(1.0 / 19));
  CHECK(*bias.first_biased.value == Approx(6.0 / 9));
  CHECK(*bias.consistent.value == Approx(2.0 / 9));
  CHECK(*bias.one_tie.value == Approx(1.0 / 9));
  CHECK(*bias.second_biased.value == 0);
  CHECK_FALSE(bias.first.lo.has_value());
  // Other names, other alphabetical order: the same figures.
  std::vector<Vote> renamed = votes;
  for (Vote& v : renamed)
    for (std::string* name : {&v.first, &v.second}) *name = *name == "a" ? "z" : *name;
  const JudgeBias other = judge_bias(files_of(renamed), kNoInterval).at(0);
  CHECK(*other.kappa.value == Approx(*bias.kappa.value));
  CHECK(*other.alpha_interval.value == Approx(*bias.alpha_interval.value));
  CHECK(*other.first_biased.value == *bias.first_biased.value);
  const JudgeBias with_interval = judge_bias(files_of(votes), {200, 0}).at(0);
  CHECK((*with_interval.first_biased.lo < 6.0 / 9 && *with_interval.first_biased.hi > 6.0 / 9));
}

TEST_CASE("two judges are compared in the same and in the opposite order") {
  // The judge `human` saw (a, b); `ai` saw both orders, agrees in the same one and contradicts in the other.
  std::vector<Vote> votes;
  for (int i = 0; i < 6; ++i) {
    std::string item = std::to_string(i);
    Verdict verdict = i % 2 == 0 ? kFirst : kSecond;
    votes.push_back(vote("human", item, "a", "b", verdict));
    votes.push_back(vote("ai", item, "a", "b", verdict));
    votes.push_back(vote("ai", item, "b", "a", verdict));
  }
  votes.push_back(vote("human", "6", "a", "b", kNone));
  votes.push_back(vote("ai", "6", "a", "b", kTie));
  const AgreementReport report = agreement(files_of(votes), kNoInterval);
  CHECK(report.raters.empty());
  REQUIRE(report.judges.size() == 2);
  CHECK((report.judges[0].order == "same" && report.judges[0].items == 6 && report.judges[0].invalid == 1));
  CHECK((*report.judges[0].raw.value == 1 && *report.judges[0].kappa.value == 1));
  CHECK((report.judges[1].order == "opposite" && *report.judges[1].kappa.value == -1));
  CHECK(*report.judges[1].kappa_quadratic.value == -1);
  CHECK(report.systems.size() == 1);
}

TEST_CASE("raters of one judge are compared and a majority stands for them") {
  std::vector<Vote> votes;
  for (Verdict v : {kFirst, kFirst, kSecond}) votes.push_back(vote("human", "1", "a", "b", v));
  for (Verdict v : {kTie, kTie, kTie}) votes.push_back(vote("human", "2", "a", "b", v));
  votes.push_back(vote("ai", "1", "a", "b", kFirst));
  votes.push_back(vote("ai", "2", "a", "b", kFirst));
  AgreementReport report = agreement(files_of(votes), kNoInterval);
  REQUIRE(report.raters.size() == 1);
  CHECK((report.raters[0].items == 2 && report.raters[0].votes == 6 && report.raters[0].raters == 3));
  CHECK(*report.raters[0].raw.value == Approx((1.0 / 3 + 1) / 2));
  // By hand: chance = (2/6)^2 + (1/6)^2 + (3/6)^2 = 7/18.
  CHECK(*report.raters[0].fleiss.value == Approx((2.0 / 3 - 7.0 / 18) / (1 - 7.0 / 18)));
  REQUIRE(report.judges.size() == 1);
  CHECK((report.judges[0].items == 2 && *report.judges[0].raw.value == 0.5));
  votes.pop_back();
  votes.push_back(vote("human", "2", "a", "b", kTie));  // four raters here
  report = agreement(files_of(votes), kNoInterval);
  CHECK(report.raters[0].raters == 0);
  CHECK_FALSE(report.raters[0].fleiss.value.has_value());
  CHECK(report.raters[0].alpha_nominal.value.has_value());
  CHECK(report.raters[0].single == 0);
  votes.push_back(vote("human", "3", "a", "b", kTie));
  votes.push_back(vote("human", "3", "a", "b", kNone));
  votes.push_back(vote("ai", "3", "a", "b", kTie));
  report = agreement(files_of(votes), kNoInterval);
  REQUIRE(report.raters.size() == 1);  // one rater alone is all that `ai` ever has
  CHECK((report.raters[0].single == 1 && report.raters[0].items == 2 && report.raters[0].invalid == 1));
}

TEST_CASE("systems are ranked alike or in reverse by two judges") {
  std::vector<Vote> votes;
  const std::vector<std::string> names = {"a", "b", "c", "d"};
  for (size_t i = 0; i < 4; ++i)
    for (size_t j = i + 1; j < 4; ++j)
      for (const char* item : {"1", "2", "3"}) {
        votes.push_back(vote("one", item, names[i], names[j], kFirst));
        votes.push_back(vote("two", item, names[i], names[j], kSecond));
        Vote unknown = vote("three", item, names[j], names[i], kSecond);
        unknown.order_known = false;
        votes.push_back(unknown);
      }
  const AgreementReport report = agreement(files_of(votes), {50, 0});
  REQUIRE(report.systems.size() == 3);
  CHECK(*report.systems[0].kendall_tau_b.value == Approx(-1));
  CHECK(*report.systems[0].kendall_tau_b.hi == Approx(-1));
  CHECK(report.systems[0].systems == 4);
  CHECK(*report.systems[1].spearman_rho.value == Approx(1));
  REQUIRE(report.judges.size() == 3);
  CHECK((report.judges[1].order == "unknown" && *report.judges[1].raw.value == 1));
}

TEST_CASE("relative scores are ratios of sums over valid votes") {
  Vote invalid = points("3", "ref", "x", 0, 0);
  invalid.verdict = kNone;
  invalid.first_score = invalid.second_score = std::nullopt;
  std::vector<Vote> votes = {
      points("1", "ref", "x", 8, 4), points("2", "ref", "x", 2, 2), invalid,
      points("1", "x", "ref", 9, 3), points("1", "x", "y", 9, 3),   points("1", "y", "ref", 5, 5)};
  std::vector<RelativeScore> scores = relative_scores(files_of(votes), "ref", kNoInterval);
  REQUIRE(scores.size() == 2);
  CHECK((scores[0].system == "x" && scores[1].system == "y"));
  CHECK(*scores[0].reference_first.value == Approx(60));
  CHECK(*scores[0].system_first.value == Approx(300));
  CHECK(*scores[0].pooled.value == Approx(100 * 15.0 / 13));
  CHECK((scores[0].votes == 3 && scores[0].invalid == 1 && scores[0].reference_first_votes == 2));
  CHECK_FALSE(scores[1].reference_first.value.has_value());
  CHECK_THROWS_WITH(relative_scores(files_of(votes), "reff", kNoInterval), Contains("did you mean `ref`"));
  CHECK_THROWS_WITH(relative_scores(files_of({vote("j", "1", "x", "ref", kFirst)}), "ref", kNoInterval),
                    Contains("no votes with points"));

  // Single answers, side by side by item.
  Vote ours = points("1", "x", "", 6, 0), theirs = points("1", "ref", "", 8, 0),
       alone = points("2", "x", "", 9, 0);
  scores = relative_scores(files_of({ours, theirs, alone}), "ref", kNoInterval);
  REQUIRE(scores.size() == 1);
  CHECK((*scores[0].pooled.value == Approx(75) && scores[0].votes == 1 && scores[0].invalid == 1));
}
