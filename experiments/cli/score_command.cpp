#include "experiments/cli/score_command.h"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "eval/ask_together.h"
#include "experiments/answer_log.h"
#include "experiments/cli/asked_task.h"
#include "experiments/cli/run_files.h"
#include "experiments/cli/scored_subject.h"
#include "experiments/score_runs.h"
#include "experiments/terminal.h"
#include "results/store.h"

namespace qlora {
namespace {

std::string names_of(const std::vector<EvalSpec>& evals) {
  std::string names;
  for (const EvalSpec& eval : evals) names += (names.empty() ? "" : ",") + eval.task;
  return names;
}

// One loaded model that answers tasks, and keeps its answers until their evaluations are whole.
class ModelScorer {
 public:
  ModelScorer(const Invocation& in, const ScoreArguments& arguments, const std::vector<EvalSpec>& evals)
      : in_(in), arguments_(arguments), what_(names_of(evals)) {
    for (const EvalSpec& eval : evals) tasks_.push_back(make_asked(eval));
    loaded_.emplace(arguments.model, in.backend, in.threads);
    // Before the long part, so that a store that cannot be written costs nothing.
    if (!arguments.no_store) store_ = Store::open(in.db);
    name_jobs();
    for (auto& task : tasks_) task->plan(loaded_->tokenizer(), loaded_->model()->config().max_positions);
  }

  int run() {
    ask();
    if (!arguments_.output.empty()) write_files();
    if (in_.json) {
      print_json();
    } else {
      for (const auto& task : tasks_) print(task->shown());
    }
    return 0;
  }

 private:
  void name_jobs() {
    const ContentHashes content{model_content_hash(arguments_.model.model),
                                loaded_->tokenizer().content_hash(), ""};
    const Digest base = base_key(loaded_->config(), content);
    int64_t step = 0;
    subject_ = scored_subject(store_ ? &*store_ : nullptr, arguments_.model, loaded_->config(), base, step);
    for (const auto& task : tasks_) {
      EvalJob& job = jobs_.emplace_back(task->job());
      job.step = step;
      job.key = evaluation_key(subject_.key, job.step, job.task, job.protocol, job.data_hash);
    }
  }

  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

  void ask() {
    Progress progress(stderr, in_.json, kPlainLineSeconds);
    GatheredAnswers log([&](const Digest& of, std::span<const PartialAnswer> answers) {
      store_->write_partial_answers(of, answers);
    });
    ModelLmOptions options;
    options.type = loaded_->type();
    options.tokenizer = loaded_->shared_tokenizer();
    options.progress = [&](int64_t done, int64_t all) {
      log.flush();
      progress.phase(what_, done, all);
    };
    std::vector<Adapter*> adapters;
    if (loaded_->adapter() != nullptr) adapters.push_back(loaded_->adapter());
    const SubjectIndex who = adapters.empty() ? -1 : 0;
    auto lm = make_model_lm(loaded_->model(), loaded_->memory(), adapters, options);
    std::vector<AskingJob> asking;
    for (size_t i = 0; i < tasks_.size(); ++i) {
      if (store_) remember(jobs_[i], log, progress);
      asking.push_back([this, i, who, &log](Lm& together) { ask_one(i, together, who, log); });
    }
    ask_together(*lm, asking);
  }

  void remember(const EvalJob& job, GatheredAnswers& log, Progress& progress) const {
    const std::vector<PartialAnswer> known = store_->partial_answers(job.key);
    if (!known.empty())
      progress.note(fmt::format("{}: goes on after {} answers that are stored", job.task, known.size()));
    log.know(job.key, known);
  }

  void ask_one(size_t i, Lm& together, SubjectIndex who, GatheredAnswers& log) {
    const Digest& key = jobs_[i].key;
    if (!store_) return tasks_[i]->ask(together, loaded_->tokenizer(), who);
    const auto missing = make_remembering_lm(together, {key, key}, log);
    tasks_[i]->ask(*missing, loaded_->tokenizer(), who);
    const double share = seconds() / static_cast<double>(tasks_.size());
    store_->write_evaluation(tasks_[i]->row(jobs_[i], subject_, started_, share));
  }

  void write_files() {
    write_task_files(arguments_.output,
                     harness_info({arguments_.model.model, arguments_.model.adapter, &loaded_->config(),
                                   std::string(loaded_->memory().backend().name()),
                                   loaded_->model()->config().max_positions},
                                  started_, seconds()),
                     loaded_->tokenizer(), tasks_);
  }

  void print(const ShownScores& shown) const {
    fmt::print("{} ({}), {}, {} shots{}\n{}", subject_.name, subject_.quant, shown.what, shown.shots,
               shown.partial ? ", partial" : "", render_text(shown.table));
    for (const std::string& note : shown.notes) fmt::print("{}\n", note);
  }

  void print_json() const {
    Json reports = Json::array();
    for (size_t i = 0; i < tasks_.size(); ++i) reports.push_back(tasks_[i]->json(jobs_[i], subject_));
    fmt::print("{}\n", (reports.size() == 1 ? reports[0] : reports).dump(1));
  }

  const Invocation& in_;
  const ScoreArguments& arguments_;
  std::string what_, started_ = now_utc();
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::vector<std::unique_ptr<AskedTask>> tasks_;
  std::optional<LoadedModel> loaded_;
  std::optional<Store> store_;
  SubjectModel subject_;
  std::vector<EvalJob> jobs_;  // one a task
};

}  // namespace

void add_score_options(CLI::App& verb, Invocation& in, ScoreArguments& arguments) {
  add_model_options(verb, arguments.model);
  add_scored_runs_options(verb, arguments.runs, arguments.memory);
  verb.add_option("--output", arguments.output,
                  "also write results_*.json and samples_*.jsonl of lm-evaluation-harness' layout here, in a "
                  "folder a model or run");
  verb.add_flag("--no-store", arguments.no_store, "do not write the result into --db");
  add_db_option(verb, in);
  add_compute_options(verb, in);
  add_json_flag(verb, in);
}

int score(const Invocation& in, const ScoreArguments& arguments, const std::vector<EvalSpec>& evals) {
  std::set<std::string> names;
  for (const EvalSpec& eval : evals)
    QLORA_CHECK(names.insert(eval.task).second, usage, "eval: task {} is named twice", eval.task);
  if (arguments.runs.empty()) {
    QLORA_CHECK(!arguments.model.model.empty(), usage, "eval {}: --model DIR or --runs is required",
                names_of(evals));
    return ModelScorer(in, arguments, evals).run();
  }
  check_runs_alone(arguments.model, arguments.no_store);
  const RunsScored scored = score_runs({.db = in.db,
                                        .runs = arguments.runs,
                                        .evals = evals,
                                        .memory = arguments.memory,
                                        .backend = in.backend,
                                        .threads = in.threads,
                                        .json = in.json});
  if (!arguments.output.empty()) write_run_files(in, arguments.output, evals, scored.runs);
  return scored.exit_code;
}

}  // namespace qlora
