#include "experiments/cli/run_files.h"

#include <algorithm>
#include <cstdio>

#include "core/models/hf_config.h"
#include "kernels/devices.h"
#include "results/query.h"

namespace qlora {
namespace {

// When the first of these evaluations began, and how long they took together.
std::pair<std::string, double> time_of(const Path& db, const std::vector<Digest>& keys) {
  std::string list;
  for (const Digest& key : keys) list += fmt::format("{}x'{}'", list.empty() ? "" : ", ", hex(key));
  const Table times = run_query(db,
                                "SELECT min(started_at) AS started, sum(seconds) AS seconds FROM evaluation "
                                "WHERE evaluation_key IN (" +
                                    list + ")");
  return {std::get<std::string>(times.at(0, "started")), std::get<double>(times.at(0, "seconds"))};
}

// Tasks, and the requests that they make of one model.
class PlannedTasks {
 public:
  explicit PlannedTasks(const std::vector<EvalSpec>& evals) {
    for (const EvalSpec& eval : evals) tasks_.push_back(make_asked(eval));
  }
  void plan(const Path& model) {
    if (model == model_) return;
    tokenizer_ = load_tokenizer(model);
    context_ = read_hf_config(model / "config.json").max_positions;
    for (const auto& task : tasks_) task->plan(*tokenizer_, context_);
    model_ = model;
  }
  void recall(const Store& store, const std::vector<Digest>& keys) {
    for (size_t i = 0; i < tasks_.size(); ++i) tasks_[i]->recall(store.predictions(keys[i]));
  }
  const std::vector<std::unique_ptr<AskedTask>>& tasks() const { return tasks_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  int64_t context() const { return context_; }

 private:
  std::vector<std::unique_ptr<AskedTask>> tasks_;
  Path model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  int64_t context_ = 0;
};

}  // namespace

void write_task_files(const Path& out, HarnessInfo info, const Tokenizer& tokenizer,
                      const std::vector<std::unique_ptr<AskedTask>>& tasks) {
  HarnessParts all;
  for (const auto& task : tasks) {
    const HarnessParts some = task->harness(tokenizer, info);
    all.tasks.insert(all.tasks.end(), some.tasks.begin(), some.tasks.end());
    all.groups.insert(all.groups.end(), some.groups.begin(), some.groups.end());
  }
  write_harness_files(out, info, tokenizer, all.tasks, all.groups);
}

void write_run_files(const Invocation& in, const Path& out, const std::vector<EvalSpec>& evals,
                     const std::vector<ScoredRun>& runs) {
  const Store store = Store::open_read_only(in.db);
  const std::string device = backend_named(in.backend);
  PlannedTasks planned(evals);
  for (const ScoredRun& run : runs) {
    const bool whole = std::all_of(run.keys.begin(), run.keys.end(),
                                   [&](const Digest& key) { return store.has_evaluation(key); });
    if (!whole) {
      fmt::print(stderr, "{}: not all is scored, no files are written\n", run.name);
      continue;
    }
    const std::string model = run.config.text("model_name_or_path");
    planned.plan(model);
    planned.recall(store, run.keys);
    const auto [started, seconds] = time_of(in.db, run.keys);
    write_task_files(
        out,
        harness_info({model, run.adapter.string(), &run.config, device, planned.context()}, started, seconds),
        planned.tokenizer(), planned.tasks());
  }
}

}  // namespace qlora
