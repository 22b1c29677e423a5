// MMLU against answers of the real libraries: hendrycks by a plain forward pass, lm_eval by lm-eval 0.4.13,
// and against the prompts that QLoRA released.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/io/test_models.h"
#include "eval/tasks/mmlu.h"

using namespace qlora;

namespace {

// One line of goldens/mmlu/mmlu_<protocol>_<shots>shot_<split>.jsonl.gz.
struct Golden {
  std::string subject, prompt_sha256, prediction, answer;
  int64_t index = 0, tokens = 0;
  std::array<int32_t, 4> letter_ids{};
  std::array<double, 4> scores{};  // logits of hendrycks, log-probabilities of lm_eval
};

std::vector<Golden> read_goldens(const Path& path) {
  std::vector<Golden> rows;
  const std::string text = read_file(path);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) {
      const Json j = parse_json(std::string_view(text).substr(at, end - at), path.string());
      Golden g{j["subject"],
               j["prompt_sha256"],
               j["prediction"],
               j["answer"],
               j["index"],
               j.value("tokens", 0),
               {},
               {}};
      if (j.contains("letter_ids")) g.letter_ids = j["letter_ids"];
      g.scores = j.contains("logits") ? j["logits"] : j["logprobs"];
      rows.push_back(g);
    }
    at = end + 1;
  }
  return rows;
}

// A file of answers, and the questions that it answers.
struct Case {
  std::vector<Golden> rows;
  MmluOptions options;
  MmluData data;
  const Golden& find(const MmluItem& item) const {
    for (const Golden& g : rows)
      if (g.subject == item.subject && g.index == item.index) return g;
    throw std::runtime_error("no golden for " + item.subject);
  }
};

// What the files of answers hold.
struct File {
  const char* protocol;
  int64_t shots;
};
constexpr File kFiles[] = {{"hendrycks", 5}, {"lm_eval", 0}, {"lm_eval", 5}};

// Calls check(case) for every file of answers.
template <class Check>
void for_each_golden(Check&& check) {
  const Path folder = test::goldens() / "mmlu", tree = test::test_data() / "03_mmlu/original_csv";
  if (test::missing(folder) || test::missing(tree)) return;
  for (const File& f : kFiles) {
    const Path path = folder / fmt::format("mmlu_{}_{}shot_val.jsonl.gz", f.protocol, f.shots);
    CAPTURE(path.string());
    REQUIRE(std::filesystem::exists(path));
    Case c{.rows = read_goldens(path), .options = {}, .data = {}};
    c.options.protocol = f.protocol;
    c.options.shots = f.shots;
    c.options.split = "val";
    for (const Golden& g : c.rows) {
      std::vector<std::string>& subjects = c.options.subjects;
      if (std::find(subjects.begin(), subjects.end(), g.subject) == subjects.end())
        subjects.push_back(g.subject);
    }
    c.data = read_mmlu(tree, c.options);
    check(c);
  }
}

}  // namespace

TEST_CASE("MMLU prompts and answer tokens equal those of the real libraries", "[golden]") {
  const Path tokenizer_folder = test::test_data() / "02_tokenizers/smollm2";
  if (test::missing(tokenizer_folder)) return;
  auto tokenizer = load_tokenizer(tokenizer_folder);
  for_each_golden([&](const Case& c) {
    MmluPlan plan = plan_mmlu(c.data, c.options, *tokenizer, 8192);
    REQUIRE(plan.items.size() == c.rows.size());
    for (const MmluItem& item : plan.items) {
      const Golden& g = c.find(item);
      CAPTURE(item.subject, item.index);
      CHECK(item.prompt_sha256 == g.prompt_sha256);
      if (g.tokens > 0) CHECK(item.prompt_tokens == g.tokens);
      if (g.letter_ids[0] > 0) CHECK(plan.letter_ids == g.letter_ids);
      CHECK(std::string(1, static_cast<char>('A' + item.gold)) == g.answer);
    }
  });
}

// Every `step`-th question of each subject: all of them would take minutes, and QLORA_LONG_TESTS=1 asks them.
MmluData sample(const MmluData& data, size_t step) {
  MmluData some = data;
  for (MmluSubject& s : some.subjects) {
    std::vector<MmluQuestion> kept;
    for (size_t i = 0; i < s.questions.size(); i += step) kept.push_back(s.questions[i]);
    s.questions = std::move(kept);
  }
  return some;
}

TEST_CASE("MMLU of SmolLM2 gives the logits and predictions of the real libraries", "[golden][slow]") {
  const Path folder = test::smollm2();
  if (test::missing(folder)) return;
  auto backend = make_backend("auto");
  Memory memory(*backend);
  auto model = load_model(folder, memory, {});
  auto tokenizer = load_tokenizer(folder);
  auto lm = make_model_lm(model, memory, {}, {});
  const bool all = std::getenv("QLORA_LONG_TESTS") != nullptr;
  for_each_golden([&](const Case& c) {
    std::vector<SubjectIndex> base = {-1};
    const MmluData data = all ? c.data : sample(c.data, c.rows.size() > 1000 ? 17 : 4);
    MmluReport report = run_mmlu(*lm, *tokenizer, data, c.options, base).front();
    REQUIRE(report.items.size() > 20);
    double worst = 0;
    for (const MmluItem& item : report.items) {
      const Golden& g = c.find(item);
      const std::array<float, 4>& ours = c.options.protocol == "lm_eval" ? item.log_probs : item.logits;
      for (size_t i = 0; i < 4; ++i)
        worst = test::worse(worst, std::abs(static_cast<double>(ours[i]) - g.scores[i]));
      CAPTURE(item.subject, item.index);
      CHECK(std::string(1, static_cast<char>('A' + item.prediction)) == g.prediction);
    }
    CAPTURE(c.options.protocol, c.options.shots, report.items.size());
    CHECK(worst < 1e-3);
    std::printf("%s %d-shot: %zu questions, worst %.1e\n", c.options.protocol.c_str(),
                static_cast<int>(c.options.shots), report.items.size(), worst);
  });
}

namespace {

// Rows of a file that QLoRA released: {subject, input, output}, in the order of the subjects' files.
template <class Check>
void for_each_released(const Path& file, const MmluData& data, Check&& check) {
  std::map<std::string, const MmluSubject*> by_name;
  for (const MmluSubject& s : data.subjects) by_name[s.name] = &s;
  std::map<std::string, size_t> next;
  const std::string text = read_file(file);
  size_t compared = 0, all = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.empty()) continue;
    const Json row = parse_json(line, file.string());
    const MmluSubject& s = *by_name.at(row["subject"].get<std::string>());
    const size_t index = next[s.name]++;
    check(s, s.questions.at(index), row);
    ++compared;
  }
  for (const MmluSubject& s : data.subjects) all += s.questions.size();
  CHECK(compared == all);
}

MmluOptions released(int64_t shots) {
  MmluOptions options;
  options.protocol = "qlora";
  options.split = "val";
  options.shots = shots;
  return options;
}

}  // namespace

TEST_CASE("zero-shot MMLU prompts equal all rows that QLoRA released", "[golden]") {
  const Path tree = test::test_data() / "03_mmlu/original_csv",
             rows = test::test_data() / "03_mmlu/qlora/zero_shot_mmlu_val.json",
             tokenizer_folder = test::test_data() / "02_tokenizers/smollm2";
  if (test::missing(tree) || test::missing(rows) || test::missing(tokenizer_folder)) return;
  const MmluOptions options = released(0);
  auto tokenizer = load_tokenizer(tokenizer_folder);
  for_each_released(
      rows, read_mmlu(tree, options), [&](const MmluSubject& s, const MmluQuestion& q, const Json& row) {
        REQUIRE(mmlu_prompt(options, s, q, 0, *tokenizer).text == row["input"].get<std::string>());
        REQUIRE(std::string(1, static_cast<char>('A' + q.answer)) == row["output"].get<std::string>());
      });
}

TEST_CASE("five-shot MMLU prompts lose the shots that the released ones lost", "[golden]") {
  const Path tree = test::test_data() / "03_mmlu/original_csv",
             rows = test::test_data() / "03_mmlu/qlora/five_shot_mmlu_val.derived.json.gz",
             tokenizer_folder = test::test_data() / "02_tokenizers/llama2_hf";
  if (test::missing(tree) || test::missing(rows) || test::missing(tokenizer_folder)) return;
  const MmluOptions options = released(5);
  auto tokenizer = load_tokenizer(tokenizer_folder);
  const MmluData data = read_mmlu(tree, options);
  const MmluPlan plan = plan_mmlu(data, options, *tokenizer, 4096);
  std::map<std::pair<std::string, int64_t>, const MmluItem*> items;
  for (const MmluItem& item : plan.items) items[{item.subject, item.index}] = &item;
  for_each_released(rows, data, [&](const MmluSubject& s, const MmluQuestion& q, const Json& row) {
    const MmluItem& item = *items.at({s.name, q.index});
    REQUIRE(mmlu_prompt(options, s, q, item.shots, *tokenizer).text == row["input"].get<std::string>());
  });
  CHECK(plan.truncated_prompts == 56);
  CHECK(plan.cut_tokens == 0);
  // Read back, the released rows are asked as they stand.
  const MmluData again = read_mmlu(rows, options);
  CHECK(plan_mmlu(again, options, *tokenizer, 4096).contexts == plan.contexts);
}
