#include <catch2/catch.hpp>

#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "eval/tasks/mmlu.h"

using namespace qlora;

namespace {

// One token per byte; the content of the model's answer is decided by the test.
class ByteTokenizer final : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, bool) const override {
    // " A" at the end of a text is one token, as in real vocabularies: 256 + letter.
    std::vector<int32_t> ids;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool answer = i + 2 == text.size() && text[i] == ' ' && text[i + 1] >= 'A' && text[i + 1] <= 'D';
      ids.push_back(answer ? 256 + text[i + 1] - 'A' : static_cast<unsigned char>(text[i]));
      if (answer) break;
    }
    return ids;
  }
  std::string decode(std::span<const int32_t>, bool) const override { return ""; }
  int64_t vocab_size() const override { return 260; }
  const SpecialTokens& special() const override { return special_; }
  int32_t id_of(std::string_view) const override { return -1; }
  std::string token(int32_t id) const override { return std::to_string(id); }
  const std::string& content_hash() const override { return empty_; }
  const std::string& chat_template() const override { return empty_; }

 private:
  SpecialTokens special_;
  std::string empty_;
};

// Subject s always answers letter s % 4 (the base, -1, answers D).
class LetterLm final : public Lm {
 public:
  explicit LetterLm(int64_t context) : context_(context) {}
  std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest> requests,
                                          const OnAnswer<NextTokenAnswer>&) override {
    std::vector<NextTokenAnswer> answers;
    for (const NextTokenRequest& r : requests) {
      NextTokenAnswer a{std::vector<float>(r.wanted.size(), 0.f), 2.0};
      a.logits[static_cast<size_t>((r.subject + 4) % 4)] = 1.f;
      answers.push_back(a);
      asked.push_back(r);
    }
    return answers;
  }
  std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest>,
                                                  const OnAnswer<LogLikelihoodAnswer>&) override {
    return {};
  }
  std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest>,
                                             const OnAnswer<std::vector<int32_t>>&) override {
    return {};
  }
  int64_t context_length() const override { return context_; }
  std::vector<NextTokenRequest> asked;

 private:
  int64_t context_;
};

// Two subjects; the answers of the test rows are A, B, C and A.
void write_tree(const Path& dir) {
  std::filesystem::create_directories(dir / "dev");
  std::filesystem::create_directories(dir / "test");
  std::string dev;
  for (int i = 0; i < 5; ++i) dev += fmt::format("dev question {},w,x,y,z,D\n", i);
  for (const char* s : {"high_school_biology", "astronomy"})
    write_file(dir / "dev" / fmt::format("{}_dev.csv", s), dev);
  write_file(dir / "test/high_school_biology_test.csv",
             "\"one, \"\"1\"\"\",0.50,None,c,d,A\nq2,a,b,c,d,B\nq3,a,b,c,d,C\n");
  write_file(dir / "test/astronomy_test.csv", "q,a,b,c,d,A\n");
}

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
  CHECK(mmlu_prompt(data.subjects[1], data.subjects[1].questions[0], 1) ==
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
  ByteTokenizer tokenizer;
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
  ByteTokenizer tokenizer;
  const std::string three = mmlu_prompt(data.subjects[0], data.subjects[0].questions[0], 3);
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

TEST_CASE("zero-shot MMLU prompts equal all rows that QLoRA released", "[golden]") {
  const Path tree = test::test_data() / "03_mmlu/original_csv",
             rows = test::test_data() / "03_mmlu/qlora/zero_shot_mmlu_val.json";
  if (test::missing(tree) || test::missing(rows)) return;
  MmluOptions options;
  options.split = "val";
  options.shots = 0;
  MmluData data = read_mmlu(tree, options);
  std::map<std::string, const MmluSubject*> by_name;
  for (const MmluSubject& s : data.subjects) by_name[s.name] = &s;
  std::map<std::string, size_t> next;
  const std::string text = read_file(rows);
  size_t compared = 0;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.empty()) continue;
    Json row = parse_json(line, rows.string());
    const MmluSubject& s = *by_name.at(row["subject"].get<std::string>());
    const MmluQuestion& q = s.questions.at(next[s.name]++);
    REQUIRE(mmlu_prompt(s, q, 0) == row["input"].get<std::string>());
    REQUIRE(std::string(1, static_cast<char>('A' + q.answer)) == row["output"].get<std::string>());
    ++compared;
  }
  size_t all = 0;
  for (const MmluSubject& s : data.subjects) all += s.questions.size();
  CHECK(compared == all);
}
