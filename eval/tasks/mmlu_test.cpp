#include <catch2/catch.hpp>

#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "core/base/test_errors.h"
#include "eval/tasks/mmlu.h"
#include "eval/tasks/mmlu_test_tools.h"

using namespace qlora;
using test::LetterLm;
using test::LetterTokenizer;
using test::message_of;
using test::write_tree;

TEST_CASE("an MMLU prompt has the bytes of the original script") {
  test::TemporaryFolder dir;
  write_tree(dir.path());
  MmluOptions options;
  options.shots = 1;
  MmluData data = read_mmlu(dir.path(), options);
  REQUIRE(data.subjects.size() == 2);
  CHECK(data.subjects[0].name == "astronomy");
  LetterTokenizer tokenizer;
  CHECK(mmlu_prompt(options, data.subjects[1], data.subjects[1].questions[0], 1, tokenizer).text ==
        "The following are multiple choice questions (with answers) about  high school biology.\n\n"
        "dev question 0\nA. w\nB. x\nC. y\nD. z\nAnswer: D\n\n"
        "one, \"1\"\nA. 0.50\nB. None\nC. c\nD. d\nAnswer:");
}

TEST_CASE("MMLU scores are micro over questions and macro over subjects with standard errors") {
  test::TemporaryFolder dir;
  write_tree(dir.path());
  MmluOptions options;
  options.shots = 0;
  MmluData data = read_mmlu(dir.path(), options);
  LetterLm lm(4096);
  LetterTokenizer tokenizer;
  std::vector<SubjectIndex> who = {-1, 0, 1};
  std::vector<MmluReport> r = run_mmlu(lm, tokenizer, data, options, who);
  REQUIRE(r.size() == 3);
  CHECK(r[0].micro.value == 0);            // D is never right
  CHECK(r[1].micro.value == Approx(0.5));  // A: 1 of 1 and 1 of 3
  CHECK(r[1].macro.value == Approx((1.0 + 1.0 / 3) / 2));
  CHECK(r[2].micro.value == Approx(0.25));  // B: 0 of 1 and 1 of 3
  CHECK(*r[1].micro.standard_error == Approx(std::sqrt(0.25 / 3)));
  CHECK_FALSE(r[1].macro.standard_error);  // one question tells nothing about its subject's spread
  CHECK(r[1].items[1].correct);
  CHECK(r[1].items[1].log_probs[0] == Approx(-1));
  CHECK(r[1].letter_ids == std::array<int32_t, 4>{256, 257, 258, 259});
  CHECK(lm.asked.size() == 12);
}

TEST_CASE("an over-long MMLU prompt drops its last shots and says so") {
  test::TemporaryFolder dir;
  write_tree(dir.path());
  MmluOptions options;
  MmluData data = read_mmlu(dir.path(), options);
  LetterTokenizer tokenizer;
  const std::string three =
      mmlu_prompt(options, data.subjects[0], data.subjects[0].questions[0], 3, tokenizer).text;
  MmluPlan plan = plan_mmlu(data, options, tokenizer, static_cast<int64_t>(three.size()));
  CHECK(plan.items[0].shots == 3);
  CHECK(plan.items[0].prompt_sha256 == hex(sha256(three)));
  CHECK(plan.truncated_prompts == 4);
  CHECK(plan.max_prompt_tokens <= static_cast<int64_t>(three.size()));
  CHECK(message_of([&] { plan_mmlu(data, options, tokenizer, 40); }).rfind("MMLU astronomy row 1:", 0) == 0);
}

TEST_CASE("protocol qlora tells the loss of the right letter and EOS beside the letters' logits") {
  test::TemporaryFolder dir;
  write_tree(dir.path());
  MmluOptions options;
  options.protocol = "qlora";
  options.shots = 0;
  const MmluData data = read_mmlu(dir.path(), options);
  LetterTokenizer tokenizer;
  LetterLm lm(4096);
  const std::vector<SubjectIndex> who = {0};
  const MmluReport report = run_mmlu(lm, tokenizer, data, options, who).at(0);
  for (size_t i = 0; i < report.items.size(); ++i)
    CHECK(lm.asked[i].continuation == std::vector<int32_t>{'A' + report.items[i].gold, 259});
  // The letters A, A, B and C cost 2, 2, 3 and 4, half of it each of two tokens.
  REQUIRE(report.answer_loss);
  CHECK(report.answer_loss->value == Approx(11.0 / 8));
  CHECK(report.answer_loss->n == 4);
  CHECK(*report.answer_loss->standard_error == Approx(std::sqrt(11.0 / 48 / 4)));

  // A prompt that fills the model's context leaves no place for the letter.
  const MmluPlan all = plan_mmlu(data, options, tokenizer, 4096);
  LetterLm narrow(all.max_prompt_tokens);
  CHECK(run_mmlu(narrow, tokenizer, data, options, who).at(0).answer_loss->n < 4);
  options.protocol = "hendrycks";
  CHECK_FALSE(run_mmlu(lm, tokenizer, data, options, who).at(0).answer_loss);
}

TEST_CASE("the first questions of all subjects, and shorter prompts, can be asked for") {
  test::TemporaryFolder dir;
  write_tree(dir.path());
  MmluOptions options;
  options.protocol = "qlora";
  options.shots = 1;
  options.samples = 3;
  options.max_length = 110;
  const MmluData data = read_mmlu(dir.path(), options);
  LetterTokenizer tokenizer;
  const MmluPlan plan = plan_mmlu(data, options, tokenizer, 4096);
  REQUIRE(plan.items.size() == 3);
  CHECK((plan.items[0].subject == "astronomy" && plan.items[2].subject == "high_school_biology"));
  CHECK(plan.max_prompt_tokens == 110);
  CHECK(plan.dropped_shots == 3);
  LetterLm lm(4096);
  const std::vector<SubjectIndex> who = {0};
  CHECK(run_mmlu(lm, tokenizer, data, options, who).at(0).partial);
}

TEST_CASE("QLoRA's folder of rendered prompts is read by shots and split") {
  test::TemporaryFolder dir;
  write_file(dir.path() / "zero_shot_mmlu_val.json",
             R"({"subject": "anatomy", "input": "Q\nAnswer:", "output": "B"})");
  std::string five;
  for (int i = 0; i < 5; ++i) five += R"(E\nAnswer: A\n\n)";
  write_file(dir.path() / "five_shot_mmlu_test.derived.json",
             R"({"subject": "anatomy", "input": ")" + five + R"(Q\nAnswer:", "output": "C"})");
  MmluOptions options;
  options.protocol = "qlora";
  options.split = "val";
  options.shots = 0;
  CHECK(read_mmlu(dir.path(), options).subjects.at(0).questions.at(0).answer == 1);
  options.split = "test";
  options.shots = 5;
  CHECK(read_mmlu(dir.path(), options).subjects.at(0).questions.at(0).answer == 2);
  options.shots = 0;
  CHECK(
      message_of(ErrorKind::usage, [&] { read_mmlu(dir.path(), options); }) ==
      dir.path().string() +
          ": no prompts of split test with 0 shots are here, but zero_shot_mmlu_val.json (--shots 0 --split "
          "val), five_shot_mmlu_test.derived.json (--shots 5 --split test)");
}

TEST_CASE("a bad MMLU tree is reported with file and line") {
  test::TemporaryFolder dir;
  write_tree(dir.path());
  MmluOptions options;
  const Path file = dir.path() / "test/astronomy_test.csv";
  write_file(file, "q,a,b,c,d,A\nq,a,b,c,A\n");
  CHECK(message_of([&] { read_mmlu(dir.path(), options); }) ==
        file.string() + ":2: expected 6 columns (question, A, B, C, D, answer), found 5");
  write_file(file, "q,a,b,c,d,E\n");
  CHECK(message_of([&] { read_mmlu(dir.path(), options); }).find("must be A, B, C or D, found `E`") !=
        std::string::npos);
  options.subjects = {"astronmy"};
  CHECK(message_of([&] { read_mmlu(dir.path(), options); }) ==
        "unknown MMLU subject `astronmy`; did you mean `astronomy`?");
  options.protocol = "hendryks";
  CHECK(message_of([&] { read_mmlu(dir.path(), options); }).find("did you mean `hendrycks`?") !=
        std::string::npos);
}
