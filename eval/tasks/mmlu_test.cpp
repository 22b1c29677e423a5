#include <catch2/catch.hpp>

#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "eval/tasks/mmlu.h"
#include "eval/tasks/mmlu_test_tools.h"

using namespace qlora;
using test::LetterTokenizer;
using test::LetterLm;
using test::write_tree;

namespace {

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

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
