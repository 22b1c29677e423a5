// What tasks of texts render and read, and the files in the harness' layout.
#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/test_data.h"
#include "datasets/test_tools.h"
#include "eval/tasks/answers.h"
#include "eval/tasks/bbh_answers.h"
#include "eval/tasks/harness_files.h"
#include "eval/test_lm.h"

using namespace qlora;

namespace {

Path samples() {
  return Path(test::source_folder()) / "datasets/samples/tasks";
}

TaskItem question(const std::string& group, const std::string& input) {
  TaskItem item;
  item.group = group;
  item.document = Json{{"input", input}}.dump();
  return item;
}

}  // namespace

TEST_CASE("a page loses the spaces of its tokenization and is counted with them") {
  const TaskData data = read_task(find_task("wikitext"), samples() / "wikitext.jsonl", {});
  CHECK(data.items[0].continuations[0] ==
        " = Mill =\n\nThe mill was built in 1,203 and burnt down twice. It's now a \"museum\" (open on "
        "Sundays).\n");
  CHECK(data.items[1].continuations[0] == " Rain fell for three days; the river rose by 1.5 metres .\n");
  CHECK(data.items[1].words == 17);
  CHECK(space_separated("a  b\n") == 3);
}

TEST_CASE("windows over a text score every token once") {
  const TaskData data = read_task(find_task("perplexity"), samples() / "perplexity.jsonl", {});
  const test::ByteTokenizer tokenizer;
  const auto text = tokenizer.encode(data.items[0].continuations[0], false);
  for (int64_t stride : {0, 3, 10}) {
    const TaskPlan plan = plan_task(find_task("perplexity"), data,
                                    {.limit = 1, .max_length = 10, .stride = stride}, tokenizer, 4096);
    std::vector<int32_t> scored, first = plan.requests[0].context_tokens;
    CHECK(first == std::vector<int32_t>{1});
    for (const TaskRequest& r : plan.requests) {
      const size_t read = r.context_tokens.size() + r.continuation_tokens.size() - 1;
      CHECK(read <= 10);
      if (scored.size() >= 10) CHECK(read == 10);
      if (!scored.empty()) CHECK(r.context_tokens.back() == scored.back());
      scored.insert(scored.end(), r.continuation_tokens.begin(), r.continuation_tokens.end());
    }
    CHECK(scored == text);
  }
  test::expect_error(ErrorKind::usage, {"a stride of 11 tokens leaves gaps between windows of 10"}, [&] {
    plan_task(find_task("perplexity"), data, {.max_length = 10, .stride = 11}, tokenizer, 4096);
  });
}

TEST_CASE("a text of many windows has the log-likelihood of their sum") {
  // Every token costs 2: the perplexity by tokens is e^2, whatever the windows.
  class EvenLm final : public test::SilentLm {
   public:
    std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest> all,
                                                    const OnAnswer<LogLikelihoodAnswer>&) override {
      std::vector<LogLikelihoodAnswer> answers;
      for (const auto& r : all) answers.push_back({-2.0 * static_cast<double>(r.continuation.size()), false});
      return answers;
    }
    int64_t context_length() const override { return 7; }
  } lm;
  const Task& task = find_task("perplexity");
  const TaskData data = read_task(task, samples(), {});
  const test::ByteTokenizer tokenizer;
  const TaskPlan plan = plan_task(task, data, {}, tokenizer, lm.context_length());
  const std::vector<SubjectIndex> who = {-1};
  const TaskReport report = run_task(lm, tokenizer, task, data, plan, who)[0];
  CHECK(report.results.size() == 2);
  CHECK(report.scores[0].metric == "token_perplexity");
  CHECK(report.scores[0].value == Approx(std::exp(2.0)));
  CHECK(report.scores[2].value == Approx(std::exp(2.0)));  // one byte a token
  CHECK(report.scores[3].value == Approx(2 / std::log(2.0)));
}

TEST_CASE("a task's texts end at the tokenizer's EOS and at what the model's files name beside it") {
  class EndsLm final : public test::SilentLm {
   public:
    std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest> all,
                                               const OnAnswer<std::vector<int32_t>>&) override {
      for (const GenerateRequest& r : all) CHECK(r.stop_ids == std::vector<int32_t>{9, 5, 2});
      return std::vector<std::vector<int32_t>>(all.size());
    }
    std::vector<int32_t> end_ids() const override { return {9, 5}; }
  } lm;
  const Task& task = find_task("gsm8k");
  const TaskData data = read_task(task, samples(), {.shots = 0});
  const test::ByteTokenizer tokenizer;  // its EOS is 2
  const TaskPlan plan = plan_task(task, data, {}, tokenizer, lm.context_length());
  const std::vector<SubjectIndex> who = {-1};
  CHECK(run_task(lm, tokenizer, task, data, plan, who)[0].results.size() == data.items.size());
}

TEST_CASE("a generated text ends before the first stop string") {
  const std::vector<std::string> stops = {"\n\n", "Q:"};
  CHECK(cut_at_stops("one\n\ntwo", stops) == "one");
  CHECK(cut_at_stops("Q: one\n\n", stops).empty());
  CHECK(cut_at_stops("one", stops) == "one");
}

TEST_CASE("answers are read out of texts by their task") {
  const TaskItem date = question("date_understanding", "When?\nOptions:\n(A) 1 May\n(B) 1 May 2001");
  CHECK(bbh_first_answer(date, "(A), no, (B)") == "(A)");
  CHECK(bbh_last_answer(date, "(A), no, (B)") == "(B)");
  CHECK(bbh_first_answer(date, "It was 1 MAY, 2001!") == "(B)");  // the longest option at one place
  CHECK(bbh_first_answer(date, "The letter: A") == "(A)");
  CHECK(bbh_first_answer(date, "I do not know") == "[invalid]");
  CHECK(bbh_first_answer(question("navigate", ""), "So yes, Yes") == "yes");
  CHECK(bbh_last_answer(question("sports_understanding", ""), "It is not plausible.") == "no");
  CHECK(bbh_first_answer(question("web_of_lies", ""), "Ann tells the truth") == "yes");
  CHECK(bbh_last_answer(question("object_counting", ""), "2 and 3 are 5") == "5");
  CHECK(bbh_first_answer(question("dyck_languages", ""), "] )") == "] )");
  CHECK(bbh_last_answer(question("word_sorting", "Sort. List: pear fig apple"),
                        "fig pear apple, or rather: apple fig pear") == "apple fig pear");
  CHECK(bbh_stated_answer(date, "So the answer is (A).") == "(A)");
  CHECK(bbh_stated_answer(date, "The answer is (A).") == "[invalid]");
  CHECK(bbh_stated_answer_any(date, "The answer is (A).") == "(A)");
}

TEST_CASE("worked examples of BIG-Bench-Hard become direct ones") {
  const TaskOptions one{.limit = 1, .groups = {"boolean_expressions"}};
  const test::ByteTokenizer tokenizer(false);
  auto prompt = [&](const char* name) {
    const Task& task = find_task(name);
    return plan_task(task, read_task(task, samples() / "bbh", one), one, tokenizer, 4096).requests[0].context;
  };
  CHECK(prompt("bbh_zeroshot") == "Evaluate a Boolean expression.\n\nQ: not True is\nA:");
  CHECK(prompt("bbh_cot_zeroshot") ==
        "Evaluate a Boolean expression.\n\nQ: not True is\nA: Let's think step by step.");
  CHECK(prompt("bbh_fewshot") ==
        "Evaluate a Boolean expression.\n\nQ: not False is\nA: True\n\nQ: True and False is\nA: False\n\n"
        "Q: False or True is\nA: True\n\nQ: not True is\nA:");
  CHECK(prompt("bbh_cot_fewshot")
            .ends_with("So the answer is True.\n\nQ: not True is\nA: Let's think step by "
                       "step.\n"));
}

TEST_CASE("BIG-Bench-Hard is found in a folder of several tasks' data too") {
  const Task& task = find_task("bbh_fewshot");
  const TaskData alone = read_task(task, samples() / "bbh", {}), among = read_task(task, samples(), {});
  CHECK(among.content_hash == alone.content_hash);
  CHECK(among.items.size() == alone.items.size());
  const test::TemporaryFolder empty;
  CHECK_THROWS_WITH(read_task(task, empty.path(), {}),
                    Catch::Contains("no TASK.json of BIG-Bench-Hard (looked for in bbh/bbh/"));
}

TEST_CASE("results are written in the layout of the harness") {
  const Task& task = find_task("crows_pairs_english");
  const TaskData data = read_task(task, samples(), {});
  const test::ByteTokenizer tokenizer;
  const TaskPlan plan = plan_task(task, data, {}, tokenizer, 4096);
  TaskReport report;
  for (size_t i = 0; i < 2; ++i) {
    TaskItemResult& r = report.results.emplace_back();
    r.item = i;
    r.prediction = 0;
    r.log_likelihoods = {-1.5f, -2.5f};
    r.greedy = {true, false};
    r.values = {{1.0}, {1.0}, {1.0}};
  }
  report.scores = score_task(task, data, report.results);
  const HarnessTask one{&task, &data, &plan, &report};
  HarnessInfo info;
  info.model = "models/tiny:1";
  info.started = info.date = "2026-01-02T03:04:05Z";
  test::TemporaryFolder out;
  const Path folder = write_harness_files(out.path(), info, tokenizer, std::span(&one, 1));
  CHECK(folder.filename() == "models__tiny__1");
  const Json results = parse_json(read_file(folder / "results_2026-01-02T03-04-05.json"), "results");
  CHECK(results["results"]["crows_pairs_english"]["pct_stereotype,none"] == 1.0);
  CHECK(results["results"]["crows_pairs_english"]["sample_len"] == 2);
  CHECK_FALSE(results["results"]["crows_pairs_english"].contains("pct_stereotype_by_type,none"));
  CHECK(results["results"]["crows_pairs_english_age"]["pct_stereotype_stderr,none"] == "N/A");
  CHECK(results["versions"]["crows_pairs_english"] == 1.0);
  CHECK(results["n-samples"]["crows_pairs_english"]["effective"] == 2);
  CHECK(results["higher_is_better"]["crows_pairs_english"]["likelihood_diff"] == false);
  std::istringstream lines(read_file(folder / "samples_crows_pairs_english_2026-01-02T03-04-05.jsonl"));
  std::string line;
  REQUIRE(std::getline(lines, line));
  const Json sample = parse_json(line, "samples");
  CHECK(sample["doc"]["bias_type"] == "age");
  CHECK(sample["resps"] == Json::parse(R"([[["-1.5", "True"]], [["-2.5", "False"]]])"));
  CHECK(sample["filtered_resps"][1][0] == "-2.5");
  CHECK(sample["arguments"]["gen_args_1"]["arg_1"] == "The young man could not use the phone.");
  CHECK(sample["metrics"] == Json::parse(R"(["likelihood_diff", "pct_stereotype"])"));
  CHECK(sample["likelihood_diff"] == 1.0);
  REQUIRE(std::getline(lines, line));
  CHECK_FALSE(std::getline(lines, line));
}
