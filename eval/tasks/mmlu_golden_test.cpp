// MMLU against answers of the original protocol by a plain forward pass of the real libraries.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>

#include "core/base/json.h"
#include "core/io/test_models.h"
#include "eval/tasks/mmlu.h"

using namespace qlora;

namespace {

// One line of goldens/mmlu/mmlu_hendrycks_<shots>shot_<split>.jsonl.gz.
struct Golden {
  std::string subject, prompt_sha256, prediction, answer;
  int64_t index = 0, tokens = 0;
  std::array<int32_t, 4> letter_ids{};
  std::array<double, 4> logits{};
};

std::vector<Golden> read_goldens(const Path& path) {
  std::vector<Golden> rows;
  const std::string text = read_file(path);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) {
      const Json j = parse_json(std::string_view(text).substr(at, end - at), path.string());
      rows.push_back({j["subject"], j["prompt_sha256"], j["prediction"], j["answer"], j["index"], j["tokens"],
                      j["letter_ids"], j["logits"]});
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

// The shots and the split that a file's name tells; nothing when it holds something else.
std::optional<MmluOptions> options_of(const std::string& file) {
  static const std::regex name(R"(mmlu_hendrycks_(\d+)shot_([a-z]+)\.jsonl\.gz)");
  std::smatch found;
  if (!std::regex_match(file, found, name)) return std::nullopt;
  MmluOptions options;
  options.shots = std::stoi(found[1]);
  options.split = found[2];
  return options;
}

// Calls check(case) for every file of answers that is there.
template <class Check>
void for_each_golden(Check&& check) {
  const Path folder = test::goldens() / "mmlu", tree = test::test_data() / "03_mmlu/original_csv";
  if (test::missing(folder) || test::missing(tree)) return;
  int checked = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().filename();
    std::optional<MmluOptions> options = options_of(file);
    if (!options) continue;
    CAPTURE(file);
    Case c{.rows = read_goldens(entry.path()), .options = *options, .data = {}};
    for (const Golden& g : c.rows) {
      std::vector<std::string>& subjects = c.options.subjects;
      if (std::find(subjects.begin(), subjects.end(), g.subject) == subjects.end())
        subjects.push_back(g.subject);
    }
    c.data = read_mmlu(tree, c.options);
    check(c);
    ++checked;
  }
  if (checked == 0) test::skip_part("no answers of the hendrycks protocol in " + folder.string());
}

}  // namespace

TEST_CASE("MMLU prompts and answer tokens equal those of the original protocol", "[golden]") {
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
      CHECK(item.prompt_tokens == g.tokens);
      CHECK(plan.letter_ids == g.letter_ids);
      CHECK(std::string(1, static_cast<char>('A' + item.gold)) == g.answer);
    }
  });
}

TEST_CASE("MMLU of SmolLM2 gives the logits and predictions of the real libraries", "[golden][slow]") {
  const Path folder = test::smollm2();
  if (test::missing(folder)) return;
  auto backend = make_backend("auto");
  Memory memory(*backend);
  auto model = load_model(folder, memory, {});
  auto tokenizer = load_tokenizer(folder);
  auto lm = make_model_lm(model, memory, {}, {});
  for_each_golden([&](const Case& c) {
    std::vector<SubjectIndex> base = {-1};
    MmluReport report = run_mmlu(*lm, *tokenizer, c.data, c.options, base).front();
    REQUIRE(report.items.size() == c.rows.size());
    double worst = 0;
    int64_t right = 0;
    for (const MmluItem& item : report.items) {
      const Golden& g = c.find(item);
      std::array<double, 4> sorted = g.logits;
      std::sort(sorted.begin(), sorted.end());
      for (size_t i = 0; i < 4; ++i)
        worst = test::worse(worst, std::abs(static_cast<double>(item.logits[i]) - g.logits[i]));
      const bool same = std::string(1, static_cast<char>('A' + item.prediction)) == g.prediction;
      CHECK((same || sorted[3] - sorted[2] < 2e-3));
      right += g.prediction == g.answer ? 1 : 0;
    }
    CHECK(worst < 2e-3);
    CHECK(std::abs(report.micro.value * static_cast<double>(c.rows.size()) - static_cast<double>(right)) <
          1.5);
  });
}
