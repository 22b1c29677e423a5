// What a sweep asks for, and what of it is done.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "eval/tasks/mmlu_rows.h"
#include "experiments/compute_dtype.h"
#include "experiments/eval_rows.h"
#include "experiments/place.h"
#include "experiments/run_file.h"
#include "experiments/scheduler.h"
#include "experiments/score_runs.h"
#include "experiments/tournament.h"
#include "results/store.h"

namespace qlora {
namespace {

// Which evaluations runs need; of two with one key, the first.
class EvalLister {
 public:
  EvalLister(Planner& planner, std::vector<PlannedRun>& runs) : planner_(planner), runs_(runs) {}

  // `spec`, of the run `i`.
  void add(const std::shared_ptr<const EvalSpec>& spec, size_t i) {
    const Asked& asked = asked_of(*spec, runs_[i]);
    auto one = [&](bool of_base, int64_t step) { add(spec, asked, i, of_base, step); };
    const int64_t end = runs_[i].config.integer("max_steps");
    if (spec->base) one(true, 0);
    if (spec->at_start) one(false, 0);
    for (int64_t step = spec->every; step > 0 && step < end; step += spec->every) one(false, step);
    if (spec->at_end) one(false, end);
  }
  std::vector<EvalNeed> take() { return std::move(all_); }

 private:
  struct Asked {
    std::string protocol, data_hash;
  };

  // What is asked, and by what protocol; checks that the run's model can be asked it.
  Asked asked_of(const EvalSpec& spec, PlannedRun& run) {
    if (spec.task == "loss") {
      QLORA_CHECK(run.config.integer("eval_dataset_size") > 0, usage,
                  "{}: task loss needs held-out examples: eval_dataset_size above 0", spec.where.text());
      return {loss_protocol(run.config), run.content.data};
    }
    QLORA_CHECK(std::filesystem::exists(spec.data), data, "{}: {} is not there{}", spec.where.text(),
                spec.data, spec.where.line == 0 ? "; give mmlu_data: PATH" : "");
    if (spec.task == "mmlu") {
      const MmluData& data = read(mmlu_, spec.data + "\n" + mmlu_protocol(spec.mmlu),
                                  [&] { return read_mmlu(spec.data, spec.mmlu); });
      planner_.check_mmlu(run, data, spec.mmlu);
      return {mmlu_protocol(spec.mmlu, is_rendered(data)), data.content_hash};
    }
    const Task& task = find_task(spec.task);
    const TaskData& data = read(tasks_, fmt::format("{}\n{}\n{}", spec.task, spec.data, spec.where.text()),
                                [&] { return read_task(task, spec.data, spec.options); });
    planner_.check_task(run, task, data, spec.options);
    return {task_protocol(task, data, spec.options), data.content_hash};
  }

  template <class Data, class Read>
  static const Data& read(std::map<std::string, Data>& known, const std::string& name, const Read& read) {
    auto found = known.find(name);
    return found != known.end() ? found->second : known.emplace(name, read()).first->second;
  }

  void add(const std::shared_ptr<const EvalSpec>& spec, const Asked& asked, size_t i, bool of_base,
           int64_t step) {
    const PlannedRun& run = runs_[i];
    EvalNeed need{i, of_base, {}, of_base ? run.base : run.key, spec, step, asked.protocol, asked.data_hash};
    need.key = evaluation_key(need.subject, step, spec->task, need.protocol, need.data_hash);
    if (keys_.insert(need.key).second) all_.push_back(std::move(need));
  }

  Planner& planner_;
  std::vector<PlannedRun>& runs_;
  std::map<std::string, MmluData> mmlu_;
  std::map<std::string, TaskData> tasks_;
  std::set<Digest> keys_;
  std::vector<EvalNeed> all_;
};

// Every evaluation that the file or a run's own options ask for, of every run and base.
std::vector<EvalNeed> list_evals(Planner& planner, const Sweep& sweep, std::vector<PlannedRun>& runs) {
  EvalLister lister(planner, runs);
  for (const EvalSpec& spec : sweep.evals) {
    const auto shared = std::make_shared<const EvalSpec>(spec);
    for (size_t i = 0; i < runs.size(); ++i) lister.add(shared, i);
  }
  for (size_t i = 0; i < runs.size(); ++i)
    for (EvalSpec& spec : own_evals(runs[i].config))
      lister.add(std::make_shared<const EvalSpec>(std::move(spec)), i);
  return lister.take();
}

// The folder of a trained run, which another sweep may have trained.
Path trained_folder(const PlannedRun& run, const Path& own) {
  if (std::filesystem::exists(own / "adapter")) return own;
  const Path other = find_adapter(run.config, run.key);
  return other.empty() ? own : run_folder_of(other);
}

std::string state_text(const WorkPlan& plan, size_t i) {
  if (plan.needs[i] == RunNeed::train) return "to train";
  if (plan.needs[i] == RunNeed::failed_before) return "failed: " + plan.reasons[i];
  int64_t open = std::count_if(plan.evals.begin(), plan.evals.end(), [&](const EvalNeed& e) {
    return !e.of_base && e.run == i && plan.is_open(e);
  });
  return open == 0 ? "done" : fmt::format("trained, {} evaluations to do", open);
}

}  // namespace

int64_t WorkPlan::to_train() const {
  return std::count(needs.begin(), needs.end(), RunNeed::train);
}
int64_t WorkPlan::to_score() const {
  return std::count_if(evals.begin(), evals.end(), [&](const EvalNeed& e) { return is_open(e); });
}
bool WorkPlan::is_open(const EvalNeed& eval) const {
  return !eval.done && !eval.gone && (eval.of_base || needs[eval.run] != RunNeed::failed_before);
}

std::string WorkPlan::note_of_gone() const {
  const int64_t gone = std::count_if(evals.begin(), evals.end(), [](const EvalNeed& e) { return e.gone; });
  if (gone == 0) return "";
  return fmt::format(
      "{} scores at earlier steps cannot be made any more: the runs are trained, and no "
      "checkpoints of those steps are left",
      gone);
}

bool WorkPlan::is_open(const AnswerNeed& need) const {
  return !need.done() && (need.of_base || needs[need.run] != RunNeed::failed_before);
}

std::vector<const PlannedRun*> WorkPlan::open_runs() const {
  std::set<size_t> open;
  for (size_t i = 0; i < runs.size(); ++i)
    if (needs[i] == RunNeed::train) open.insert(i);
  for (const EvalNeed& eval : evals)
    if (is_open(eval)) open.insert(eval.run);
  for (const AnswerNeed& need : answers.answers)
    if (is_open(need)) open.insert(need.run);
  std::vector<const PlannedRun*> out;
  for (size_t i : open) out.push_back(&runs[i]);
  return out;
}

WorkPlan plan_work(Planner& planner, const Sweep& sweep, const Store* store, size_t budget) {
  WorkPlan plan;
  plan.compute_note = settle_compute_dtype(planner, sweep, store, plan.runs);
  for (const PlannedRun& run : plan.runs) plan.folders.push_back(run_folder(sweep, run));
  plan.evals = list_evals(planner, sweep, plan.runs);
  plan.answers = plan_answers(planner, sweep, plan.runs);
  for (const TournamentSpec& spec : sweep.tournaments) {
    check_options(spec);
    if (!spec.judge.empty()) check_named_systems(spec, judged_systems(plan.answers, spec.judge));
  }
  planner.fit(plan.runs, budget);
  plan.notes = planner.notes();
  return plan;
}

void mark_done(WorkPlan& plan, const Store* store, bool retry_failed) {
  plan.needs.clear();
  plan.reasons.clear();
  for (const PlannedRun& run : plan.runs) {
    std::optional<RunInfo> info = store != nullptr ? store->find_run(run.key) : std::nullopt;
    bool finished = info && info->state == RunState::finished;
    bool failed = info && info->state == RunState::failed && !retry_failed;
    plan.needs.push_back(finished ? RunNeed::nothing : failed ? RunNeed::failed_before : RunNeed::train);
    plan.reasons.push_back(info ? info->reason : "");
  }
  for (size_t i = 0; i < plan.runs.size(); ++i)
    if (plan.needs[i] == RunNeed::nothing) plan.folders[i] = trained_folder(plan.runs[i], plan.folders[i]);
  for (EvalNeed& eval : plan.evals) {
    eval.done = store != nullptr && store->has_evaluation(eval.key);
    const bool past = plan.needs[eval.run] == RunNeed::nothing && !eval.of_base && eval.step > 0 &&
                      eval.step < plan.runs[eval.run].config.integer("max_steps");
    eval.gone =
        !eval.done && past && !std::filesystem::exists(checkpoint_folder(plan.folders[eval.run], eval.step));
  }
  for (AnswerNeed& need : plan.answers.answers)
    need.never = !need.of_base && plan.needs[need.run] == RunNeed::failed_before;
  mark_answers(plan.answers, store);
}

std::vector<PlannedPack> pack_work(Planner& planner, const WorkPlan& plan, size_t budget) {
  check_judges(plan.answers, budget);
  return planner.pack(plan.open_runs(), budget);
}

std::vector<std::string> describe_settings(const WorkPlan& plan) {
  std::vector<std::string> lines;
  for (const DataNote& note : plan.notes) lines.push_back(note.text);
  const RunConfig& config = plan.runs.at(0).config;
  int64_t batch = config.integer("per_device_train_batch_size");
  int64_t accumulation = config.integer("gradient_accumulation_steps");
  std::string note = plan.compute_note.empty() ? "" : " (" + plan.compute_note + ")";
  lines.push_back(fmt::format("resolved: compute_dtype {}{}, optim {}, {} base, effective batch {} = {} x {}",
                              config.text("compute_dtype"), note, config.text("optim"), quant_label(config),
                              batch * accumulation, batch, accumulation));
  return lines;
}

std::string describe_plan(const Sweep& sweep, const WorkPlan& plan, size_t budget) {
  Table table;
  table.columns = {"run"};
  for (const std::string& name : sweep.varied) table.columns.push_back(name);
  for (const char* name : {"key", "memory", "state"}) table.columns.push_back(name);
  for (size_t i = 0; i < plan.runs.size(); ++i) {
    const PlannedRun& run = plan.runs[i];
    std::vector<Value> row = {run.name};
    for (const std::string& name : sweep.varied) row.emplace_back(to_string(run.config.at(name)));
    row.emplace_back(hex(run.key).substr(0, 12));
    row.emplace_back(format_bytes(run.memory));
    row.emplace_back(state_text(plan, i));
    table.rows.push_back(std::move(row));
  }
  std::string out = render_text(table);
  out += fmt::format("{} runs, {} to train; {} evaluations, {} to do; {} may be used", plan.runs.size(),
                     plan.to_train(), plan.evals.size(), plan.to_score(), format_bytes(budget));
  if (sweep.left_out > 0) out += fmt::format("; {} more runs left out by run_cap", sweep.left_out);
  for (const std::string& line : describe_answers(plan.answers)) out += "\n" + line;
  return out + "\n";
}

std::string plan_json(const Sweep& sweep, const WorkPlan& plan, const std::vector<PlannedPack>& packs,
                      size_t budget) {
  Json runs = Json::array(), packs_json = Json::array();
  for (const PlannedPack& pack : packs) {
    Json names = Json::array();
    for (const PlannedRun* run : pack.runs) names.push_back(run->name);
    packs_json.push_back({{"runs", names},
                          {"gradient_checkpointing", name_of(pack.checkpointing)},
                          {"memory", pack.memory.bytes()}});
    if (pack.memory.device.kernels == CountedKernels::cuda)
      packs_json.back()["products"] = describe_products(pack.memory);
  }
  for (size_t i = 0; i < plan.runs.size(); ++i) {
    const PlannedRun& run = plan.runs[i];
    runs.push_back({{"name", run.name},
                    {"key", hex(run.key)},
                    {"memory", run.memory},
                    {"state", state_text(plan, i)},
                    {"config", run.config.to_json()}});
  }
  Json json = {{"notes", describe_settings(plan)},
               {"sweep", sweep.name},
               {"varied", sweep.varied},
               {"runs", runs},
               {"packs", packs_json},
               {"to_train", plan.to_train()},
               {"to_score", plan.to_score()},
               {"to_answer", plan.answers.to_answer()},
               {"to_judge", plan.answers.to_judge()},
               {"budget", budget},
               {"left_out", sweep.left_out}};
  return json.dump(1);
}

Path sweep_folder(const Sweep& sweep) {
  return Path(sweep.runs.at(0).config.text("output_dir")) / sweep.name;
}

Path run_folder(const Sweep& sweep, const PlannedRun& run) {
  return Path(run.config.text("output_dir")) / sweep.name / (hex(run.key).substr(0, 8) + "-" + run.name);
}

}  // namespace qlora
