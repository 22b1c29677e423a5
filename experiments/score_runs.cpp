#include "experiments/score_runs.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/check.h"
#include "core/text/tokenizer.h"
#include "eval/tasks/mmlu_rows.h"
#include "experiments/eval_rows.h"
#include "experiments/pack_runner.h"
#include "experiments/place.h"
#include "experiments/plan.h"
#include "experiments/run_file.h"
#include "experiments/terminal.h"
#include "results/query.h"

namespace qlora {
namespace {

// What one task asks, in one state of its data.
struct Questions {
  EvalSpec eval;
  std::optional<MmluData> mmlu;
  const Task* task = nullptr;
  TaskData data;
  std::string hash, protocol;
  std::vector<Digest> keys = {};  // of the evaluations of all runs
};

Questions read_questions(const EvalSpec& eval) {
  Questions q;
  q.eval = eval;
  if (eval.task == "mmlu") {
    q.mmlu = read_mmlu(eval.data, eval.mmlu);
    q.hash = q.mmlu->content_hash;
    q.protocol = mmlu_protocol(eval.mmlu, is_rendered(*q.mmlu));
  } else {
    q.task = &find_task(eval.task);
    q.data = read_task(*q.task, eval.data, eval.options);
    q.hash = q.data.content_hash;
    q.protocol = task_protocol(*q.task, q.data, eval.options);
  }
  return q;
}

class RunsScorer {
 public:
  explicit RunsScorer(const ScoreRunsOptions& options)
      : options_(options),
        progress_(stderr, options.json, kPlainLineSeconds),
        place_(place_of(options.backend, options.memory)),
        planner_(place_.device) {}

  RunsScored run() {
    QLORA_CHECK(std::filesystem::exists(options_.db), data, "{}: there is no results store",
                options_.db.string());
    Store store = Store::open(options_.db);
    for (const EvalSpec& eval : options_.evals) questions_.push_back(read_questions(eval));
    std::vector<std::string> notes;
    const std::vector<RunInfo> runs = choose_runs(store, options_.runs, notes);
    for (const std::string& note : notes) progress_.note(note);
    for (const RunInfo& run : runs) add(store, run);
    if (options_.json) launch(runs);
    std::vector<const PlannedRun*> all;
    for (PlannedRun& run : planned_) all.push_back(&run);
    const std::vector<PlannedPack> packs = planner_.pack(all, place_.budget);
    catch_stop_signals();
    for (const PlannedPack& pack : packs)
      if (stop_signals() == 0) score(store, pack);
    return {finish(runs.size()), std::move(scored_)};
  }

 private:
  void launch(const std::vector<RunInfo>& runs) const {
    std::vector<std::string> tasks, names;
    for (const Questions& q : questions_) tasks.push_back(q.eval.task);
    for (const RunInfo& run : runs) names.push_back(run.name);
    size_t missing = 0;
    for (const RunJob& run : jobs_) missing += run.evals.size();
    fmt::print("{}\n", Json{{"type", "launch"},
                            {"db", options_.db.string()},
                            {"tasks", tasks},
                            {"runs", names},
                            {"evaluations", tasks.size() * names.size()},
                            {"to_do", missing}}
                           .dump());
    std::fflush(stdout);
  }

  // A run that the store has no score of is planned, and its part of a job made.
  void add(const Store& store, const RunInfo& info) {
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
    ScoredRun& scored = scored_.emplace_back(ScoredRun{run.name, run.config, run.adapter, {}});
    for (Questions& questions : questions_) {
      EvalJob eval = job_of(questions, run);
      questions.keys.push_back(eval.key);
      scored.keys.push_back(eval.key);
      if (store.has_evaluation(eval.key)) continue;
      eval.answers = store.partial_answers(eval.key);
      run.evals.push_back(std::move(eval));
    }
    if (run.evals.empty()) return;
    plan(run, base);
    jobs_.push_back(std::move(run));
  }

  static EvalJob job_of(const Questions& questions, const RunJob& run) {
    EvalJob eval;
    eval.task = questions.eval.task;
    eval.step = run.config.integer("max_steps");
    eval.protocol = questions.protocol;
    eval.data = questions.eval.data;
    eval.data_hash = questions.hash;
    eval.mmlu = questions.eval.mmlu;
    eval.options = questions.eval.options;
    eval.key = evaluation_key(run.key, eval.step, eval.task, eval.protocol, eval.data_hash);
    return eval;
  }

  // Nothing is trained, so that checkpointing does not matter and runs on one base share a pack.
  void plan(const RunJob& run, const Digest& base) {
    PlannedRun& planned = planned_.emplace_back();
    planned.name = run.name;
    planned.config = run.config.with("gradient_checkpointing", std::string("none"));
    planned.content = run.content;
    planned.key = run.key;
    planned.base = base;
    planned.pack = hex(base);
    for (const Questions& questions : questions_) {
      const bool open = std::any_of(run.evals.begin(), run.evals.end(),
                                    [&](const EvalJob& eval) { return eval.task == questions.eval.task; });
      if (!open) continue;
      if (questions.mmlu) {
        planner_.check_mmlu(planned, *questions.mmlu, questions.eval.mmlu);
      } else {
        planner_.check_task(planned, *questions.task, questions.data, questions.eval.options);
      }
    }
  }

  const ContentHashes& content_of(const Path& model) {
    auto [place, fresh] = contents_.try_emplace(model.string());
    if (fresh) place->second = {model_content_hash(model), load_tokenizer(model)->content_hash(), ""};
    return place->second;
  }

  Job make_job(const std::vector<const PlannedRun*>& pack) const {
    Job job;
    const Path model = pack[0]->config.text("model_name_or_path");
    job.model = model;
    job.base_name = (model.filename().empty() ? model.parent_path() : model).filename().string();
    job.base_key = pack[0]->base;
    job.backend = place_.backend;
    job.threads = options_.threads;
    for (const PlannedRun* run : pack) job.runs.push_back(jobs_[static_cast<size_t>(run - planned_.data())]);
    return job;
  }

  void score(Store& store, const PlannedPack& pack) {
    Job job = make_job(pack.runs);
    const MemoryPlan& memory = pack.memory;
    job.device = memory.options;
    job.room = memory.passing;
    job.lasting = memory.lasting;
    const Path folder = job.runs[0].folder.parent_path() / "eval";  // of the first run's sweep
    std::filesystem::create_directories(folder);
    FileLock lock(folder / "lock");
    QLORA_CHECK(lock.try_lock(), failure, "process {} is scoring runs of this sweep ({} is locked)",
                lock.holder(), (folder / "lock").string());
    progress_.note(fmt::format("{}: {} run{} on {}, the base loaded once", tasks_of(job), job.runs.size(),
                               job.runs.size() == 1 ? "" : "s", job.base_name));
    PackRunner runner(store, progress_, job,
                      {.memory = memory.bytes(),
                       .context = place_.device.context,
                       .json = options_.json,
                       .folder = folder,
                       .lock = lock.descriptor()});
    runner.run();
    failures_.insert(failures_.end(), runner.failures().begin(), runner.failures().end());
  }

  int finish(size_t runs) {
    progress_.clear();
    for (const std::string& failure : failures_) progress_.note("failed: " + failure);
    const int signal = last_stop_signal();
    if (signal != 0) progress_.note("stopped; the same command goes on from here");
    const int code = signal != 0 ? 128 + signal : failures_.empty() ? 0 : 1;
    if (options_.json) {
      Json scores = Json::object();
      for (const Questions& q : questions_) scores[q.eval.task] = scores_json(q);
      if (questions_.size() == 1) scores = Json(scores.front());
      fmt::print("{}\n", Json{{"type", "done"}, {"exit_code", code}, {"scores", scores}}.dump());
    } else {
      for (const Questions& q : questions_)
        fmt::print("{}, {} of {} runs\n{}", title(q), scored(q), runs, text_of(results(q, "m.name AS run")));
    }
    std::fflush(stdout);
    return code;
  }

  // Those that a pack is still asked.
  static std::string tasks_of(const Job& job) {
    std::vector<std::string> names;
    for (const RunJob& run : job.runs)
      for (const EvalJob& eval : run.evals)
        if (std::find(names.begin(), names.end(), eval.task) == names.end()) names.push_back(eval.task);
    return fmt::format("{}", fmt::join(names, ", "));
  }

  static std::string title(const Questions& q) {
    const MmluOptions& mmlu = q.eval.mmlu;
    if (q.mmlu) return fmt::format("MMLU {} {}, {} shots", mmlu.protocol, mmlu.split, mmlu.shots);
    return fmt::format("{} version {}", q.task->name, q.task->version);
  }

  size_t scored(const Questions& q) const {
    const Table count = run_query(
        options_.db, "SELECT count(*) AS n FROM evaluation WHERE evaluation_key IN (" + key_list(q) + ")");
    return static_cast<size_t>(std::get<int64_t>(count.rows.at(0).at(0)));
  }

  static std::string key_list(const Questions& q) {
    std::string keys;
    for (const Digest& key : q.keys) keys += fmt::format("{}x'{}'", keys.empty() ? "" : ", ", hex(key));
    return keys;
  }

  static std::string text_of(const Table& table) {
    TextStyle style;
    style.null = "n/a";
    std::string text = render_text(table, style);
    for (const std::vector<Value>& row : table.rows)
      for (const Value& value : row)
        if (std::holds_alternative<std::monostate>(value))
          return text +
                 "n/a: not defined, as the correlation of what does not vary or the standard error of what "
                 "is no mean\n";
    return text;
  }

  // Rows of the tables, with their evaluations' keys; those of MMLU with their subjects and groups too.
  Json scores_json(const Questions& q) const {
    Json rows = to_json(results(q, "m.name AS run, lower(hex(e.evaluation_key)) AS key"));
    if (!q.mmlu) return rows;
    std::map<std::string, Json> subjects, groups;
    const Table parts =
        run_query(options_.db,
                  "SELECT lower(hex(e.evaluation_key)) AS key, n.name AS metric, s.name AS part, r.value,"
                  " r.standard_error, r.n" +
                      from(q, "s.name <> '' AND n.name IN ('acc', 'acc_group')"));
    for (const Json& part : to_json(parts)) {
      auto& of = part["metric"] == "acc" ? subjects : groups;
      of[part["key"].get<std::string>()][part["part"].get<std::string>()] = {
          {"value", part["value"]}, {"standard_error", part["standard_error"]}, {"n", part["n"]}};
    }
    for (Json& row : rows) {
      const auto key = row["key"].get<std::string>();
      row["subjects"] = subjects[key];
      row["groups"] = groups[key];
    }
    return rows;
  }

  static std::string from(const Questions& q, const std::string& which) {
    return " FROM evaluation e JOIN subject_model m USING(subject_model_id)"
           " JOIN eval_result r USING(evaluation_id) JOIN metric_name n USING(metric_id)"
           " JOIN subject s ON s.subject_id = r.subject_id AND " +
           which + " WHERE e.evaluation_key IN (" + key_list(q) + ")";
  }

  // The scores of whole tasks; `of`: the columns that say whose.
  Table results(const Questions& q, const std::string& of) const {
    const std::string whole = from(q, "s.name = ''");
    if (!q.mmlu)
      return run_query(options_.db, "SELECT " + of +
                                        ", n.name AS metric, r.value, r.standard_error AS se, r.n" + whole +
                                        " ORDER BY metric, value DESC, run");
    return run_query(options_.db, "SELECT " + of +
                                      ", max(CASE n.name WHEN 'acc' THEN r.value END) AS micro,"
                                      " max(CASE n.name WHEN 'acc' THEN r.standard_error END) AS micro_se,"
                                      " max(CASE n.name WHEN 'acc_macro' THEN r.value END) AS macro,"
                                      " max(CASE n.name WHEN 'acc' THEN r.n END) AS n, e.shots" +
                                      whole + " GROUP BY e.evaluation_id ORDER BY micro DESC, run");
  }

  const ScoreRunsOptions& options_;
  Progress progress_;
  Place place_;
  Planner planner_;
  std::vector<Questions> questions_;  // one a task
  std::vector<PlannedRun> planned_;
  std::vector<RunJob> jobs_;  // one a planned run
  std::vector<ScoredRun> scored_;
  std::map<std::string, ContentHashes> contents_;
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

RunsScored score_runs(const ScoreRunsOptions& options) {
  return RunsScorer(options).run();
}

}  // namespace qlora
