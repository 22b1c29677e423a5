// The figures of the QLoRA paper and of its released judgments.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "core/base/test_data.h"
#include "eval/agreement/agree.h"
#include "eval/agreement/bias.h"
#include "eval/agreement/relative.h"
#include "eval/judge/answer_ids.h"
#include "eval/ratings/answer_lengths.h"
#include "eval/ratings/presets.h"

using namespace qlora;

namespace {

Path release() {
  return test::test_data() / "04_qlora_eval";
}

std::vector<JudgmentFile> of_the_preset(const Path& folder) {
  const Preset& eight = preset("qlora-vicuna-human");
  std::vector<std::string> systems(eight.systems.begin(), eight.systems.end());
  return only_between(load_judgments(std::vector<std::string>{folder.string()}), systems);
}

double percent(const Estimate& estimate) {
  REQUIRE(estimate.value.has_value());
  return 100 * *estimate.value;
}

const BootstrapOptions kNoInterval{0, 0};

// To the printed decimals.
bool prints(double value, double printed, double unit) {
  return std::abs(value - printed) <= unit / 2 + 1e-9;
}

}  // namespace

TEST_CASE("GPT-4's preference for the first answer is that of the release", "[golden]") {
  if (test::missing(release() / "ratings-gpt4/vicuna/pairwise")) return;
  const std::vector<JudgeBias> all =
      judge_bias(of_the_preset(release() / "ratings-gpt4/vicuna/pairwise"), kNoInterval);
  REQUIRE(all.size() == 1);
  const JudgeBias& bias = all[0];
  CHECK((bias.judge == "gpt-4" && bias.votes == 4480 && bias.invalid == 13 && bias.swaps == 2227));
  CHECK(prints(percent(bias.first), 56.2, 0.1));
  CHECK(prints(percent(bias.second), 30.3, 0.1));
  CHECK(prints(percent(bias.tie), 13.4, 0.1));
  CHECK(prints(percent(bias.consistent), 61.4, 0.1));
  CHECK(prints(percent(bias.first_biased), 19.6, 0.1));
  CHECK(prints(percent(bias.second_biased), 0.9, 0.1));
  CHECK(prints(percent(bias.one_tie), 18.1, 0.1));
  // From the views of both systems of a pair; from one view alone, by the names of the files, kappa is 0.386.
  CHECK(std::abs(*bias.kappa.value - 0.3967351) < 1e-6);
  CHECK(std::abs(*bias.kappa_quadratic.value - 0.4641600) < 1e-6);
  CHECK(std::abs(*bias.alpha_nominal.value - 0.3635468) < 1e-6);
  CHECK(std::abs(*bias.alpha_interval.value - 0.4228627) < 1e-6);
}

TEST_CASE("human raters agree as far as the release says and GPT-4 with their majority", "[golden]") {
  if (test::missing(release() / "prd_human")) return;
  std::vector<JudgmentFile> files = of_the_preset(release() / "prd_human");
  CHECK(files.size() == 56);  // Claude is left out
  const JudgeBias bias = judge_bias(files, kNoInterval).at(0);
  CHECK((bias.votes == 6720 && bias.swaps == 0));
  CHECK(prints(percent(bias.first), 100 * 3010.0 / 6720, 1e-6));
  const AgreementReport humans = agreement(files, kNoInterval);
  REQUIRE(humans.raters.size() == 1);
  CHECK((humans.raters[0].items == 2240 && humans.raters[0].raters == 3 && humans.raters[0].votes == 6720));
  CHECK(prints(*humans.raters[0].fleiss.value, 0.185, 0.001));
  CHECK(prints(*humans.raters[0].raw.value, 0.515, 0.001));

  for (JudgmentFile& file : of_the_preset(release() / "ratings-gpt4/vicuna/pairwise")) files.push_back(file);
  const AgreementReport report = agreement(files, {100, 0});
  REQUIRE(report.judges.size() == 2);
  const JudgeAgreement &same = report.judges[0], &opposite = report.judges[1];
  CHECK((same.order == "same" && opposite.order == "opposite" && same.judge == "human" &&
         same.other == "gpt-4"));
  CHECK(prints(*same.raw.value, 0.558, 0.001));
  CHECK(prints(*same.kappa.value, 0.271, 0.001));
  CHECK(prints(*opposite.kappa.value, 0.253, 0.001));
  CHECK(prints(*same.fleiss.value, 0.262, 0.001));
  CHECK(prints(*opposite.fleiss.value, 0.241, 0.001));
  CHECK((*same.kappa.lo < *same.kappa.value && *same.kappa.value < *same.kappa.hi));
  REQUIRE(report.systems.size() == 1);
  CHECK(report.systems[0].systems == 8);
  // The order of the human column of Table 7 and of its GPT-4 column: tau 0.571, rho 0.619.
  CHECK(prints(*report.systems[0].kendall_tau_b.value, 0.571, 0.001));
  CHECK(prints(*report.systems[0].spearman_rho.value, 0.619, 0.001));
}

TEST_CASE("the released answers decide who was shown first as the judgments alone do", "[golden]") {
  const Path judgments = release() / "ratings-gpt4/vicuna/relative-gpt-3.5",
             answers = release() / "generations/vicuna";
  if (test::missing(judgments) || test::missing(answers)) return;
  AnswerBook book;
  for (const Path& path : find_answer_files(answers.string())) book.add(path);
  const std::vector<std::string> folder = {judgments.string()};
  const std::vector<JudgmentFile> alone = load_judgments(folder), with_book = load_judgments(folder, &book);
  REQUIRE((alone.size() == 72 && with_book.size() == 72));
  for (size_t i = 0; i < 72; ++i) {
    INFO(alone[i].path);
    CHECK(alone[i].order == with_book[i].order);
    CHECK(alone[i].reversed == with_book[i].reversed);
  }
}

TEST_CASE("scores relative to ChatGPT are those of Table 6 to the printed decimal", "[golden]") {
  if (test::missing(release() / "ratings-gpt4/vicuna/relative-gpt-3.5")) return;
  const std::vector<JudgmentFile> files =
      load_judgments(std::vector<std::string>{(release() / "ratings-gpt4/vicuna/relative-gpt-3.5").string()});
  std::map<std::string, RelativeScore> ours;
  for (const RelativeScore& score : relative_scores(files, "gpt-3.5", kNoInterval))
    ours[score.system] = score;
  CHECK(ours.size() == 36);
  int rows = 0, means = 0;
  for (const PublishedRelativeScore& row : published_relative_scores()) {
    INFO(row.system);
    REQUIRE(ours.count(std::string(row.system)) == 1);
    const RelativeScore& score = ours[std::string(row.system)];
    double first = row.reference_first, second = row.system_first;
    if (row.system == "gpt-4") std::swap(first, second);  // swapped in print
    rows +=
        prints(*score.reference_first.value, first, 0.1) && prints(*score.system_first.value, second, 0.1);
    means += prints(*score.pooled.value, row.mean, 0.1);
  }
  CHECK(published_relative_scores().size() == 21);
  CHECK(rows == 20);
  CHECK(means == 18);
  CHECK(prints(*ours["alpaca-13b"].pooled.value, 70.5, 0.1));
  CHECK(prints(*ours["self-instruct-13b"].pooled.value, 49.7, 0.1));
  CHECK(prints(*ours["huggingchat-33b"].reference_first.value, 73.4, 0.1));
  CHECK(prints(*ours["huggingchat-33b"].system_first.value, 85.7, 0.1));
  CHECK(prints(*ours["huggingchat-33b"].pooled.value, 79.5, 0.1));
}
