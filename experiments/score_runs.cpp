#include "experiments/score_runs.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/check.h"
#include "core/text/tokenizer.h"
#include "experiments/eval_rows.h"
#include "experiments/pack_runner.h"
#include "experiments/run_file.h"
#include "results/query.h"

namespace qlora {
namespace {

constexpr double kPlainLineSeconds = 10;

// Runs on one base: one job.
struct Group {
  Job job;
  Path folder;  // of the first run's sweep
};

class RunsScorer {
 public:
  explicit RunsScorer(const ScoreRunsOptions& options)
      : options_(options), progress_(stderr, options.json, kPlainLineSeconds) {}

  int run() {
    QLORA_CHECK(std::filesystem::exists(options_.db), data, "{}: there is no results store",
                options_.db.string());
    Store store = Store::open(options_.db);
    const MmluData data = read_mmlu(options_.data, options_.mmlu);
    std::vector<std::string> notes;
    const std::vector<RunInfo> runs = choose_runs(store, options_.runs, notes);
    for (const std::string& note : notes) progress_.note(note);
    for (const RunInfo& run : runs) add(store, run, data.content_hash);
    catch_stop_signals();
    for (auto& [base, group] : groups_)
      if (stop_signals() == 0) score(store, group);
    return finish(runs.size());
  }

 private:
  void add(const Store& store, const RunInfo& info, const std::string& data_hash) {
    RunJob run;
    run.name = info.name;
    run.key = info.key;
    run.config = RunConfig::from_json(parse_json(info.config_json, "run " + info.name));
    run.adapter = find_adapter(run.config, run.key);
    QLORA_CHECK(!run.adapter.empty(), data, "run {} is trained, but its adapter is not below {}", run.name,
                run.config.text("output_dir"));
    run.folder = run_folder_of(run.adapter);
    const Path model = run.config.text("model_name_or_path");
    run.content = content_of(model);
    const Digest base = base_key(run.config, run.content);
    const std::optional<RunFile> file = read_run_file(run.folder);
    QLORA_CHECK(!file || file->base == base, data, "{} has changed since run {} was trained", model.string(),
                run.name);
    EvalJob eval{
        {},        "mmlu",       run.config.integer("max_steps"), mmlu_protocol(options_.mmlu), options_.data,
        data_hash, options_.mmlu};
    eval.key = evaluation_key(run.key, eval.step, eval.task, eval.protocol, eval.data_hash);
    keys_.push_back(eval.key);
    if (store.has_evaluation(eval.key)) return;
    eval.answers = store.partial_answers(eval.key);
    run.evals = {std::move(eval)};
    Group& group = groups_[base];
    if (group.job.runs.empty()) {
      group.job.model = model;
      group.job.base_name = model.filename().string();
      group.job.base_key = base;
      group.job.backend = options_.backend;
      group.job.threads = options_.threads;
      group.folder = run.folder.parent_path() / "eval";
    }
    group.job.runs.push_back(std::move(run));
  }

  const ContentHashes& content_of(const Path& model) {
    auto [place, fresh] = contents_.try_emplace(model.string());
    if (fresh) place->second = {model_content_hash(model), load_tokenizer(model)->content_hash(), ""};
    return place->second;
  }

  void score(Store& store, Group& group) {
    std::filesystem::create_directories(group.folder);
    FileLock lock(group.folder / "lock");
    QLORA_CHECK(lock.try_lock(), failure, "process {} is scoring runs of this sweep ({} is locked)",
                lock.holder(), (group.folder / "lock").string());
    progress_.note(fmt::format("mmlu: {} run{} on {}, the base loaded once", group.job.runs.size(),
                               group.job.runs.size() == 1 ? "" : "s", group.job.base_name));
    PackRunner runner(
        store, progress_, group.job,
        {.memory = 0, .json = options_.json, .folder = group.folder, .lock = lock.descriptor()});
    runner.run();
    failures_.insert(failures_.end(), runner.failures().begin(), runner.failures().end());
  }

  int finish(size_t runs) {
    progress_.clear();
    for (const std::string& failure : failures_) progress_.note("failed: " + failure);
    const int signal = last_stop_signal();
    if (signal != 0) progress_.note("stopped; the same command goes on from here");
    const int code = signal != 0 ? 128 + signal : failures_.empty() ? 0 : 1;
    const Table table = results();
    if (options_.json) {
      fmt::print("{}\n", Json{{"type", "done"}, {"exit_code", code}, {"scores", to_json(table)}}.dump());
    } else {
      fmt::print("MMLU {} {}, {} shots, {} of {} runs\n{}", options_.mmlu.protocol, options_.mmlu.split,
                 options_.mmlu.shots, table.rows.size(), runs, render_text(table));
    }
    std::fflush(stdout);
    return code;
  }

  Table results() const {
    std::string keys;
    for (const Digest& key : keys_) keys += fmt::format("{}x'{}'", keys.empty() ? "" : ", ", hex(key));
    return run_query(options_.db,
                     "SELECT m.name AS run, max(CASE n.name WHEN 'acc' THEN r.value END) AS micro,"
                     " max(CASE n.name WHEN 'acc' THEN r.standard_error END) AS micro_se,"
                     " max(CASE n.name WHEN 'acc_macro' THEN r.value END) AS macro,"
                     " max(CASE n.name WHEN 'acc' THEN r.n END) AS n, e.shots"
                     " FROM evaluation e JOIN subject_model m USING(subject_model_id)"
                     " JOIN eval_result r USING(evaluation_id) JOIN metric_name n USING(metric_id)"
                     " JOIN subject s ON s.subject_id = r.subject_id AND s.name = ''"
                     " WHERE e.evaluation_key IN (" +
                         keys + ") GROUP BY e.evaluation_id ORDER BY micro DESC, run");
  }

  const ScoreRunsOptions& options_;
  Progress progress_;
  std::map<Digest, Group> groups_;  // by base
  std::map<std::string, ContentHashes> contents_;
  std::vector<Digest> keys_;
  std::vector<std::string> failures_;
};

}  // namespace

std::vector<RunInfo> choose_runs(const Store& store, const std::vector<std::string>& names,
                                 std::vector<std::string>& notes) {
  const std::string sweep = "sweep=";
  std::vector<RunInfo> chosen;
  std::set<Digest> seen;
  auto add = [&](const RunInfo& run) {
    if (seen.insert(run.key).second) chosen.push_back(run);
  };
  for (const std::string& name : names) {
    if (!name.starts_with(sweep)) {
      const RunInfo run = store.resolve_run(name);
      QLORA_CHECK(run.state == RunState::finished, usage, "run {} is {}, it has no final adapter to score",
                  run.name, name_of(run.state));
      add(run);
      continue;
    }
    for (const RunInfo& run : store.sweep_status(name.substr(sweep.size())).runs) {
      if (run.state == RunState::finished)
        add(run);
      else
        notes.push_back(fmt::format("run {} is left out: it is {}", run.name, name_of(run.state)));
    }
  }
  QLORA_CHECK(!chosen.empty(), usage, "--runs: none of these runs is trained");
  return chosen;
}

Path find_adapter(const RunConfig& config, const Digest& run) {
  const std::string start = hex(run).substr(0, 8) + "-";
  std::error_code error;
  for (const auto& sweep : std::filesystem::directory_iterator(config.text("output_dir"), error)) {
    if (!sweep.is_directory()) continue;
    for (const auto& folder : std::filesystem::directory_iterator(sweep.path(), error))
      if (folder.path().filename().string().starts_with(start) &&
          std::filesystem::exists(folder.path() / "adapter"))
        return folder.path() / "adapter";
  }
  return {};
}

int score_runs(const ScoreRunsOptions& options) {
  return RunsScorer(options).run();
}

}  // namespace qlora
