// Tasks against lm-evaluation-harness 0.4.13: requests byte for byte, and SmolLM2's answers.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/io/test_models.h"
#include "eval/tasks/run_task.h"

using namespace qlora;

namespace {

// A file of the harness' answers, and where the questions came from.
struct Case {
  const char* file;
  const char* task;
  const char* source;         // below the test data's 06_eval
  int64_t examples_from = 0;  // row of the source's few-shot pool; 0: no examples
};
const Case kChoices[] = {
    {"arc_challenge_2way", "arc_challenge", "commonsense/arc_challenge_val.jsonl"},
    {"arc_easy", "arc_easy", "commonsense/arc_easy.jsonl"},
    {"arc_easy_5shot", "arc_easy", "commonsense/arc_easy.jsonl", 2000},
    {"crows_pairs_english", "crows_pairs_english", "crows_pairs/crows_pairs_anonymized.csv"},
    {"hellaswag", "hellaswag", "commonsense/hellaswag.jsonl"},
    {"hellaswag_5shot", "hellaswag", "commonsense/hellaswag.jsonl", 500},
    {"mnli", "mnli", "adv_glue/dev.json"},
    {"piqa", "piqa", "piqa/valid.jsonl"},
    {"qnli", "qnli", "adv_glue/dev.json"},
    {"qqp", "qqp", "adv_glue/dev.json"},
    {"rte", "rte", "adv_glue/dev.json"},
    {"sst2", "sst2", "classification/sst2/seed5/dev_500.txt"},
    {"truthfulqa_mc1", "truthfulqa_mc1", "truthfulqa/TruthfulQA.csv"},
    {"truthfulqa_mc2", "truthfulqa_mc2", "truthfulqa/TruthfulQA.csv"},
    {"winogrande", "winogrande", "commonsense/winogrande.jsonl"},
};

std::vector<Json> read_lines(const Path& path) {
  std::vector<Json> rows;
  std::istringstream in(read_file(path));
  for (std::string line; std::getline(in, line);) rows.push_back(parse_json(line, path.string()));
  return rows;
}

// The answers, and the same questions rendered by us.
struct Loaded {
  std::vector<Json> golden;
  const Task* task = nullptr;
  TaskData data;
  TaskPlan plan;
};
Loaded load(const Case& c, const Tokenizer& tokenizer, int64_t limit = 0) {
  const Path golden = test::goldens() / "lm_eval_tasks" / (std::string(c.file) + ".jsonl.gz");
  const Path source = test::test_data() / "06_eval" / c.source;
  CAPTURE(golden.string(), source.string());
  REQUIRE(std::filesystem::exists(golden));
  REQUIRE(std::filesystem::exists(source));
  Loaded l{.golden = read_lines(golden), .task = &find_task(c.task), .data = {}, .plan = {}};
  if (limit > 0 && l.golden.size() > static_cast<size_t>(limit)) l.golden.resize(static_cast<size_t>(limit));
  l.data = read_task(*l.task, source, {});
  if (c.examples_from > 0) {
    l.data.shots = 5;
    l.data.examples.assign(l.data.items.begin() + c.examples_from,
                           l.data.items.begin() + c.examples_from + l.data.shots);
  }
  l.plan = plan_task(*l.task, l.data, {.limit = static_cast<int64_t>(l.golden.size())}, tokenizer, 8192);
  return l;
}

// The stand-in for LAMBADA has no source of its own: its rows are put together again.
Loaded load_lambada(const Tokenizer& tokenizer, int64_t limit = 0) {
  const Path golden = test::goldens() / "lm_eval_tasks/lambada_openai_standin.jsonl.gz";
  CAPTURE(golden.string());
  REQUIRE(std::filesystem::exists(golden));
  Loaded l{.golden = read_lines(golden), .task = &find_task("lambada_openai"), .data = {}, .plan = {}};
  if (limit > 0) l.golden.resize(static_cast<size_t>(limit));
  test::TemporaryFolder dir;
  std::string rows;
  for (const Json& row : l.golden)
    rows += Json{{"text", row["context"].get<std::string>() + row["continuations"][0].get<std::string>()}}
                .dump() +
            "\n";
  write_file(dir.path() / "rows.jsonl", rows);
  l.data = read_task(*l.task, dir.path() / "rows.jsonl", {});
  l.plan = plan_task(*l.task, l.data, {}, tokenizer, 8192);
  return l;
}

void check_requests(const Loaded& l) {
  size_t at = 0;
  for (const Json& row : l.golden) {
    CAPTURE(row["index"].get<int>());
    const size_t n = row["continuations"].size();
    for (size_t choice = 0; choice < n; ++choice, ++at) {
      REQUIRE(at < l.plan.requests.size());
      const TaskRequest& r = l.plan.requests[at];
      const Json& context = row["context"].is_null() ? row["contexts"][choice] : row["context"];
      CHECK(r.context == context.get<std::string>());
      CHECK(r.continuation == row["continuations"][choice].get<std::string>());
      CHECK(r.context_tokens.size() == row["n_context_tokens"][choice].get<size_t>());
      CHECK(r.continuation_tokens.size() == row["n_scored_tokens"][choice].get<size_t>());
    }
    const TaskItem& item = l.data.items[l.plan.requests[at - 1].item];
    if (row.contains("gold") && row["gold"].is_number()) CHECK(item.gold == row["gold"].get<int64_t>());
    if (row.contains("choice_lengths"))
      CHECK(item.lengths == row["choice_lengths"].get<std::vector<int64_t>>());
    if (row.contains("labels")) CHECK(item.labels == row["labels"].get<std::vector<int64_t>>());
  }
  CHECK(at > 0);
  CHECK(at == l.plan.requests.size());
}

// Metrics that are no function of which choice is likeliest.
bool continuous(const Task& task, const std::string& metric) {
  return metric == "likelihood_diff" || metric == "perplexity" || task.name == "truthfulqa_mc2";
}

// Log-likelihoods within 1e-3 of a scored token; what is likeliest, by both rules, and what follows from it
// equal. The two best choices of an item are never nearer than 1e-4 (winogrande) here, and ours differ from
// the harness' by some 1e-5: an item that flips is an error of ours.
void check_answers(const Loaded& l, const TaskReport& report) {
  REQUIRE(!l.golden.empty());
  REQUIRE(report.results.size() == l.golden.size());
  double worst = 0;
  for (size_t i = 0; i < l.golden.size(); ++i) {
    const Json& row = l.golden[i];
    const TaskItemResult& r = report.results[i];
    CAPTURE(row["index"].get<int>());
    const auto theirs = row["loglikelihoods"].get<std::vector<double>>();
    REQUIRE(r.log_likelihoods.size() == theirs.size());
    TaskAnswer ours;
    double all_tokens = 0;
    for (size_t c = 0; c < theirs.size(); ++c) {
      const double tokens = row["n_scored_tokens"][c].get<double>();
      all_tokens += tokens;
      ours.log_likelihoods.push_back(static_cast<double>(r.log_likelihoods[c]));
      worst = test::worse(worst, std::abs(ours.log_likelihoods[c] - theirs[c]) / tokens);
    }
    CHECK(r.greedy == row["is_greedy"].get<std::vector<bool>>());
    if (row.contains("prediction_acc")) {
      CHECK(r.prediction == row["prediction_acc"].get<int64_t>());
      CHECK(likeliest_by_length(l.data.items[r.item], ours) == row["prediction_acc_norm"].get<int64_t>());
    }
    for (size_t m = 0; m < l.task->metrics.size(); ++m) {
      const std::string& name = l.task->metrics[m].name;
      if (!row.contains(name)) continue;
      const double value = row[name].get<double>(), scored = r.values[m].value;
      CAPTURE(name);
      if (!continuous(*l.task, name))
        CHECK(scored == value);
      else
        CHECK(std::abs(scored - value) < 1e-3 * (name == "likelihood_diff" ? all_tokens : 1));
    }
  }
  CHECK(worst < 1e-3);
}

// Equal means of what is right and wrong; perplexities and means of log-likelihoods are near.
void check_score(const Task& task, const TaskScore& ours, double theirs) {
  CAPTURE(ours.metric, ours.value);
  CHECK(ours.value == Approx(theirs).epsilon(continuous(task, ours.metric) ? 1e-4 : 1e-12).margin(1e-12));
}

bool data_missing(const Path& model) {
  return test::missing(model) || test::missing(test::goldens() / "lm_eval_tasks") ||
         test::missing(test::test_data() / "06_eval");
}

std::vector<Case> choices() {
  return {std::begin(kChoices), std::end(kChoices)};
}

}  // namespace

TEST_CASE("requests of tasks equal those of lm-evaluation-harness byte for byte", "[golden]") {
  const Path folder = test::test_data() / "02_tokenizers/smollm2";
  if (data_missing(folder)) return;
  const auto tokenizer = load_tokenizer(folder);
  for (const Case& c : choices()) {
    CAPTURE(std::string(c.file));
    check_requests(load(c, *tokenizer));
  }
  check_requests(load_lambada(*tokenizer));
}

// All items with QLORA_LONG_TESTS=1, else the first few of each task.
TEST_CASE("SmolLM2's answers to tasks equal those of lm-evaluation-harness", "[golden][slow]") {
  const Path folder = test::smollm2();
  if (data_missing(folder)) return;
  const bool all = std::getenv("QLORA_LONG_TESTS") != nullptr;
  auto backend = make_backend("auto");
  Memory memory(*backend);
  auto model = load_model(folder, memory, {});
  auto tokenizer = load_tokenizer(folder);
  auto lm = make_model_lm(model, memory, {}, {});
  const Json summary = parse_json(read_file(test::goldens() / "lm_eval_tasks/summary.json"), "summary.json");
  const std::vector<SubjectIndex> base = {-1};
  auto check = [&](const std::string& file, const Loaded& l) {
    CAPTURE(file);
    const TaskReport report = run_task(*lm, *tokenizer, *l.task, l.data, l.plan, base)[0];
    check_answers(l, report);
    if (!all) return;
    for (const auto& [name, value] : summary[file]["metrics"].items())
      for (const TaskScore& s : report.scores)
        if (s.metric == name && s.group.empty()) check_score(*l.task, s, value.get<double>());
  };
  auto limit_of = [&](const Case& c) -> int64_t {
    if (all) return 0;
    return c.examples_from > 0 || std::string(c.task).starts_with("truthfulqa") ? 1 : 3;
  };
  for (const Case& c : choices()) check(c.file, load(c, *tokenizer, limit_of(c)));
  check("lambada_openai_standin", load_lambada(*tokenizer, all ? 0 : 3));
}
