// What a sweep asks for, and what of it is done.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "experiments/compute_dtype.h"
#include "experiments/eval_rows.h"
#include "experiments/scheduler.h"
#include "results/store.h"

namespace qlora {
namespace {

// Every evaluation that the file asks for, of every run and base.
std::vector<EvalNeed> list_evals(Planner& planner, const Sweep& sweep, std::vector<PlannedRun>& runs) {
  std::vector<EvalNeed> all;
  for (const EvalSpec& spec : sweep.evals) {
    std::string data_hash, protocol;
    if (spec.task == "mmlu") {
      MmluData data = read_mmlu(spec.data, spec.mmlu);
      for (PlannedRun& run : runs) planner.check_mmlu(run, data, spec.mmlu);
      data_hash = data.content_hash;
      protocol = mmlu_protocol(spec.mmlu);
    } else if (spec.task != "loss") {
      const Task& task = find_task(spec.task);
      const TaskData data = read_task(task, spec.data, spec.options);
      for (PlannedRun& run : runs) planner.check_task(run, task, data, spec.options);
      data_hash = data.content_hash;
      protocol = task_protocol(task, data, spec.options);
    }
    std::set<Digest> bases;
    for (size_t i = 0; i < runs.size(); ++i) {
      const PlannedRun& run = runs[i];
      auto add = [&](bool of_base, int64_t step) {
        EvalNeed need{i, of_base, {}, of_base ? run.base : run.key, &spec, step, protocol, data_hash, false};
        if (spec.task == "loss") {
          QLORA_CHECK(run.config.integer("eval_dataset_size") > 0, usage,
                      "{}: task loss needs held-out examples: eval_dataset_size above 0", spec.where.text());
          need.protocol = loss_protocol(run.config);
          need.data_hash = run.content.data;
        }
        need.key = evaluation_key(need.subject, step, spec.task, need.protocol, need.data_hash);
        all.push_back(std::move(need));
      };
      if (spec.base && bases.insert(run.base).second) add(true, 0);
      if (spec.at_start) add(false, 0);
      if (spec.at_end) add(false, run.config.integer("max_steps"));
    }
  }
  return all;
}

std::string state_text(const WorkPlan& plan, size_t i) {
  if (plan.needs[i] == RunNeed::train) return "to train";
  if (plan.needs[i] == RunNeed::failed_before) return "failed: " + plan.reasons[i];
  int64_t open = std::count_if(plan.evals.begin(), plan.evals.end(),
                               [&](const EvalNeed& e) { return !e.of_base && e.run == i && !e.done; });
  return open == 0 ? "done" : fmt::format("trained, {} evaluations to do", open);
}

}  // namespace

int64_t WorkPlan::to_train() const {
  return std::count(needs.begin(), needs.end(), RunNeed::train);
}
int64_t WorkPlan::to_score() const {
  return std::count_if(evals.begin(), evals.end(), [&](const EvalNeed& e) {
    return !e.done && (e.of_base || needs[e.run] != RunNeed::failed_before);
  });
}

std::vector<const PlannedRun*> WorkPlan::open_runs() const {
  std::set<size_t> open;
  for (size_t i = 0; i < runs.size(); ++i)
    if (needs[i] == RunNeed::train) open.insert(i);
  for (const EvalNeed& eval : evals)
    if (!eval.done && (eval.of_base || needs[eval.run] != RunNeed::failed_before)) open.insert(eval.run);
  std::vector<const PlannedRun*> out;
  for (size_t i : open) out.push_back(&runs[i]);
  return out;
}

WorkPlan plan_work(Planner& planner, const Sweep& sweep, const Store* store, size_t budget) {
  WorkPlan plan;
  plan.runs = planner.plan(sweep);
  plan.compute_note = settle_compute_dtype(planner, sweep, store, plan.runs);
  plan.evals = list_evals(planner, sweep, plan.runs);
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
  for (EvalNeed& eval : plan.evals) eval.done = store != nullptr && store->has_evaluation(eval.key);
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
    for (const std::string& name : sweep.varied) row.push_back(to_string(run.config.at(name)));
    row.push_back(hex(run.key).substr(0, 12));
    row.push_back(format_bytes(run.memory));
    row.push_back(state_text(plan, i));
    table.rows.push_back(std::move(row));
  }
  std::string out = render_text(table);
  out += fmt::format("{} runs, {} to train; {} evaluations, {} to do; {} may be used", plan.runs.size(),
                     plan.to_train(), plan.evals.size(), plan.to_score(), format_bytes(budget));
  if (sweep.left_out > 0) out += fmt::format("; {} more runs left out by run_cap", sweep.left_out);
  return out + "\n";
}

std::string plan_json(const Sweep& sweep, const WorkPlan& plan, size_t budget) {
  Json runs = Json::array();
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
               {"to_train", plan.to_train()},
               {"to_score", plan.to_score()},
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
