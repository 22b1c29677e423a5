// A task of the registry, asked of one model.
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "experiments/cli/asked_task.h"
#include "experiments/eval_rows.h"
#include "experiments/table_8.h"

namespace qlora {
namespace {

Json report_json(const Task& task, const TaskData& data, const TaskPlan& plan, const TaskReport& report,
                 const SubjectModel& subject, const EvalJob& job) {
  Json scores = Json::array();
  for (const TaskScore& s : report.scores) {
    scores.push_back(score_json(s.value, s.standard_error, s.n));
    scores.back().update({{"metric", s.metric}, {"filter", s.filter}, {"group", s.group}, {"note", s.note}});
  }
  Json protocol = parse_json(job.protocol, "protocol");
  protocol.erase("rows");  // the form of stored rows: of the key, not of the way to ask
  Json json = {{"task", task.name},
               {"version", task.version},
               {"subject", subject.name},
               {"quant", subject.quant},
               {"key", hex(job.key)},
               {"protocol", std::move(protocol)},
               {"data", data.path.string()},
               {"data_sha256", data.content_hash},
               {"items", plan.asked.size()},
               {"partial", plan.partial},
               {"requests", plan.requests.size()},
               {"request_sha256", plan.request_hash},
               {"cut_requests", plan.cut},
               {"longest_request", plan.longest},
               {"scores", scores}};
  if (const auto paper = table_8(task, report)) json["table_8"] = to_json(*paper);
  return json;
}

ShownScores shown_report(const Task& task, const TaskPlan& plan, const TaskReport& report) {
  ShownScores shown{fmt::format("{} version {}", task.name, task.version), plan.shots, plan.partial, {}};
  shown.table.columns = {"part", "metric", "filter", "value", "se", "n"};
  for (const TaskScore& s : report.scores) {
    const std::string part = s.group.empty() ? "all" : s.group;
    shown.table.rows.push_back({part, s.metric, s.filter,
                                std::isfinite(s.value) ? Value(s.value) : Value("n/a"),
                                s.standard_error ? Value(*s.standard_error) : Value(), s.n});
    if (!s.note.empty()) shown.notes.push_back(fmt::format("{} of {}: {}", s.metric, part, s.note));
  }
  if (const auto paper = table_8(task, report))
    shown.notes.push_back("\nTable 8 of the QLoRA paper, in percent (50 is no preference)\n" +
                          render_text(*paper, {.decimals = 1}));
  if (plan.cut > 0)
    shown.notes.push_back(fmt::format("{} of {} requests were too long and lost their beginning", plan.cut,
                                      plan.requests.size()));
  return shown;
}

class RegistryTask final : public AskedTask {
 public:
  explicit RegistryTask(const EvalSpec& eval)
      : task_(find_task(eval.task)), options_(eval.options), data_(read_task(task_, eval.data, options_)) {}

  EvalJob job() const override {
    EvalJob job;
    job.task = task_.name;
    job.protocol = task_protocol(task_, data_, options_);
    job.data = data_.path.string();
    job.data_hash = data_.content_hash;
    return job;
  }
  void plan(const Tokenizer& tokenizer, int64_t context_length) override {
    plan_ = plan_task(task_, data_, options_, tokenizer, context_length);
  }
  void ask(Lm& lm, const Tokenizer& tokenizer, SubjectIndex who) override {
    report_ = run_task(lm, tokenizer, task_, data_, plan_, std::span(&who, 1)).at(0);
  }
  void recall(std::span<const PredictionRow> rows) override {
    report_ = recalled_report(task_, data_, plan_, rows);
  }

  EvalRow row(const EvalJob& job, const SubjectModel& subject, const std::string& started,
              double seconds) const override {
    return task_row(job, subject, task_, data_, report_, started, seconds);
  }
  HarnessParts harness(const Tokenizer&, HarnessInfo& info) override {
    info.limit = options_.limit;
    if (data_.draw != FewshotDraw::first) info.fewshot_seed = options_.fewshot_seed;
    return harness_parts({&task_, &data_, &plan_, &report_});
  }
  Json json(const EvalJob& job, const SubjectModel& subject) const override {
    return report_json(task_, data_, plan_, report_, subject, job);
  }
  ShownScores shown() const override { return shown_report(task_, plan_, report_); }

 private:
  const Task& task_;
  TaskOptions options_;
  TaskData data_;
  TaskPlan plan_;
  TaskReport report_;
};

}  // namespace

Json score_json(double value, const std::optional<double>& standard_error, int64_t n) {
  return {
      {"value", value}, {"standard_error", standard_error ? Json(*standard_error) : Json(nullptr)}, {"n", n}};
}

std::unique_ptr<AskedTask> make_asked_task(const EvalSpec& eval) {
  return std::make_unique<RegistryTask>(eval);
}

std::unique_ptr<AskedTask> make_asked(const EvalSpec& eval) {
  return eval.task == "mmlu" ? make_asked_mmlu(eval) : make_asked_task(eval);
}

}  // namespace qlora
