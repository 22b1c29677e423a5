// mmlu/lm_eval, mmlu/prefix_loop: five-shot questions against lm-evaluation-harness and against a loop over
// transformers that copies the keys and values of the shots. scripts/peers/ runs both in turn with these
// rows.
#include "experiments/bench/peer_questions.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/base/parallel.h"
#include "core/models/hf_config.h"
#include "experiments/bench/step_lab.h"

namespace qlora::bench {
namespace {

struct Against {
  const char* name;
  bool bf16, all_threads;
  double goal;
  const char* peer;
};
const Against kAgainst[] = {
    {"mmlu/lm_eval/f32/all-threads", false, true, 8,
     "lm-evaluation-harness (scripts/bench.sh --with-lm-eval)"},
    {"mmlu/prefix_loop/bf16/t1", true, false, 1.8,
     "transformers with a copied cache (scripts/bench.sh --with-hf)"},
};

void peer_row(Bench& bench, const Against& a) {
  const int threads = a.all_threads ? bench.most_threads() : 1;
  std::string why = missing_model(bench.options().model);
  if (why.empty()) why = missing_peer_questions();
  if (!why.empty()) {
    bench.emit(missing_row(a.name, "questions/s", threads, why));
    return;
  }
  set_thread_count(threads);
  const Path& folder = bench.options().model;
  Memory memory(bench.backend());
  // The same numbers as the peer's: nothing is quantized.
  auto model = load_model(folder, memory, {.operands = a.bf16 ? Operands::bf16 : Operands::as_stored});
  auto tokenizer = load_tokenizer(folder);
  const MmluOptions options = peer_questions(bench.options().quick);
  const MmluData data = read_mmlu(mmlu_tree().path, options);
  auto lm = make_model_lm(model, memory, {}, {});
  const std::vector<SubjectIndex> base = {-1};
  MmluReport report;
  // With prompts, tokens and scores, as the peer's time is taken.
  const std::vector<double> seconds =
      time_of([&] { report = run_mmlu(*lm, *tokenizer, data, options, base).front(); },
              bench.options().quick ? Effort{1, 1, 0} : Effort{3, 3, 0, 12});
  Row row = single_row(a.name, "questions/s", static_cast<double>(report.items.size()), seconds, threads);
  row.goal = a.goal;
  row.against = a.peer;
  const auto right =
      std::count_if(report.items.begin(), report.items.end(), [](const MmluItem& i) { return i.correct; });
  if (bench.peer(a.name) != nullptr)
    row.note =
        fmt::format("{} of {} answers right; lm_eval's prompts, five shots", right, report.items.size());
  Json log_probs = Json::array();
  for (const MmluItem& item : report.items) log_probs.push_back(item.log_probs);
  bench.outcome(a.name, {{"log_probs", log_probs}});
  bench.emit(std::move(row));
  set_thread_count(bench.most_threads());
}

Json row_json(const MmluQuestion& q) {
  return {{"question", q.question}, {"choices", q.choices}, {"answer", q.answer}};
}

}  // namespace

MmluTree mmlu_tree() {
  const char* data = std::getenv("QLORA_TEST_DATA");
  const Path tree = Path(data != nullptr ? data : "../shared/data") / "03_mmlu/original_csv";
  if (std::filesystem::is_directory(tree)) return {tree, ""};
  const Path own = "datasets/samples/mmlu";
  return {own, fmt::format(
                   "NOT THE ORIGINAL QUESTIONS, for there is no {} (QLORA_TEST_DATA names the folder above "
                   "it): our own few in {}",
                   tree.string(), own.string())};
}

MmluOptions peer_questions(bool quick) {
  MmluOptions options;
  options.protocol = "lm_eval";
  options.split = "val";
  options.limit = quick ? 3 : 0;
  options.subjects = {"abstract_algebra", "anatomy", "marketing", "us_foreign_policy"};
  return options;
}

std::string missing_peer_questions() {
  for (const std::string& subject : peer_questions(false).subjects)
    if (!std::filesystem::exists(mmlu_tree().path / "val" / (subject + "_val.csv")))
      return fmt::format("not measured: {} has no val of {} (QLORA_TEST_DATA names the original questions)",
                         mmlu_tree().path.string(), subject);
  return "";
}

Json peer_questions_json(const Options& bench) {
  const MmluOptions options = peer_questions(bench.quick);
  const MmluData data = read_mmlu(mmlu_tree().path, options);
  const auto tokenizer = load_tokenizer(bench.model);
  const MmluPlan plan =
      plan_mmlu(data, options, *tokenizer, read_hf_config(bench.model / "config.json").max_positions);
  Json subjects = Json::array();
  size_t next = 0;
  for (const MmluSubject& s : data.subjects) {
    Json dev = Json::array(), questions = Json::array();
    for (const MmluQuestion& q : s.dev) dev.push_back(row_json(q));
    const size_t asked = options.limit > 0
                             ? std::min<size_t>(s.questions.size(), static_cast<size_t>(options.limit))
                             : s.questions.size();
    for (size_t i = 0; i < asked; ++i) {
      Json row = row_json(s.questions[i]);
      row["tokens"] = plan.contexts.at(next++);
      questions.push_back(std::move(row));
    }
    subjects.push_back({{"name", s.name}, {"dev", dev}, {"questions", questions}});
  }
  return {{"letters", plan.letter_ids}, {"subjects", subjects}};
}

void peer_question_rows(Bench& bench) {
  for (const Against& a : kAgainst)
    if (bench.wants(a.name)) peer_row(bench, a);
}

}  // namespace qlora::bench
