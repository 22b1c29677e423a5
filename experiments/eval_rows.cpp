#include "experiments/eval_rows.h"

#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "core/base/json.h"
#include "experiments/evals.h"

namespace qlora {
namespace {

EvalRow start_row(const EvalJob& job, const SubjectModel& subject, const std::string& started_at,
                  double seconds) {
  EvalRow row;
  row.key = job.key;
  row.subject = subject;
  row.step = job.step;
  row.task.data = digest_from_hex(job.data_hash);
  row.protocol_json = job.protocol;
  row.started_at = started_at;
  row.seconds = seconds;
  return row;
}

AggregateRow accuracy_row(const char* metric, const std::string& subject, const Accuracy& accuracy) {
  return {metric, subject, accuracy.n, accuracy.value, accuracy.standard_error};
}

const char* stored_kind(TaskKind kind) {
  return kind == TaskKind::rolling ? "perplexity" : kind == TaskKind::generate ? "generate" : "choice";
}

// Whether an answer counts as right: a true choice, or full marks where the metric is one of right or wrong.
bool is_right(const Task& task, const TaskItem& item, const TaskItemResult& result) {
  if (task.kind == TaskKind::choice) {
    if (item.labels.empty()) return result.prediction == item.gold;
    return item.labels[static_cast<size_t>(result.prediction)] == 1;
  }
  for (size_t m = 0; m < task.metrics.size(); ++m)
    if ((task.metrics[m].name == "acc" || task.metrics[m].name == "exact_match") &&
        result.values[m].value == 1)
      return true;
  return false;
}

// Rows of an evaluation, found by their item.
class StoredItems {
 public:
  explicit StoredItems(std::span<const PredictionRow> rows) {
    for (const PredictionRow& p : rows) rows_[{p.subject, p.ordinal}] = &p;
  }
  const PredictionRow& find(const std::string& task, const std::string& subject, int64_t ordinal,
                            const std::string& prompt_sha256) const {
    const auto found = rows_.find({subject, ordinal});
    QLORA_CHECK(found != rows_.end() && hex(found->second->prompt) == prompt_sha256, failure,
                "task {}: the store has no answer to {} question {} as it is asked now", task, subject,
                ordinal + 1);
    return *found->second;
  }

 private:
  std::map<std::pair<std::string, int64_t>, const PredictionRow*> rows_;
};

bool is_own(const RunConfig& config, const EvalJob& job) {
  for (const EvalSpec& own : own_evals(config)) {
    if (own.task != job.task) continue;
    if (own.task != "mmlu") return true;
    for (const bool rendered : {false, true})
      if (own.data == job.data && mmlu_protocol(own.mmlu, rendered) == job.protocol) return true;
  }
  return false;
}

// The name in log_history; empty for what is not there.
std::string logged_name(const EvalJob& job, const AggregateRow& a) {
  if (job.task == "loss") return "eval_loss";
  if (a.metric == "answer_loss") return "mmlu_loss";
  const std::string accuracy = job.mmlu.split == "test" ? "mmlu_test_accuracy" : "mmlu_eval_accuracy";
  if (a.metric == "acc_macro") return accuracy;
  return a.metric == "acc" && !a.subject.empty() ? accuracy + "_" + a.subject : "";
}

}  // namespace

double main_score(const EvalRow& row) {
  const bool macro =
      row.task.name == "mmlu" &&
      mmlu_protocol_named(parse_json(row.protocol_json, "protocol").at("name").get<std::string>()).macro;
  for (const AggregateRow& a : row.aggregates)
    if (a.subject.empty() && (!macro || a.metric == "acc_macro")) return a.value;
  fail(ErrorKind::failure, "an evaluation of {} without a score", row.task.name);
}

std::string quant_label(const RunConfig& config) {
  if (config.integer("bits") == 32) return "none";
  return config.text("quant_type") + (config.flag("double_quant") ? "+dq" : "");
}

SubjectModel base_subject(const Digest& key, const std::string& name, const Path& model,
                          const std::string& quant) {
  return {key, false, name, model.string(), quant};
}

SubjectModel run_subject(const RunJob& run, const Path& model) {
  return {run.key, true, run.name, model.string(), quant_label(run.config)};
}

EvalRow mmlu_row(const EvalJob& job, const SubjectModel& subject, const MmluReport& report,
                 const std::string& started_at, double seconds) {
  EvalRow row = start_row(job, subject, started_at, seconds);
  row.task.name = "mmlu";
  row.task.version = job.mmlu.split + "-" + job.data_hash.substr(0, 12);
  row.task.kind = "choice";
  row.aggregates.push_back(accuracy_row("acc", "", report.micro));
  row.aggregates.push_back(accuracy_row("acc_macro", "", report.macro));
  if (report.answer_loss) row.aggregates.push_back(accuracy_row("answer_loss", "", *report.answer_loss));
  for (const auto& [name, accuracy] : report.subjects)
    row.aggregates.push_back(accuracy_row("acc", name, accuracy));
  for (const auto& [name, accuracy] : report.groups)
    row.aggregates.push_back(accuracy_row("acc_group", name, accuracy));
  const bool log_probs = mmlu_protocol_named(job.mmlu.protocol).log_probs;
  for (const MmluItem& item : report.items) {
    PredictionRow& p = row.predictions.emplace_back();
    p.subject = item.subject;
    p.ordinal = item.index;
    p.prompt = digest_from_hex(item.prompt_sha256);
    p.gold = item.gold;
    p.pred = item.prediction;
    p.correct = item.correct;
    const std::array<float, 4>& scores = log_probs ? item.log_probs : item.logits;
    p.scores.assign(scores.begin(), scores.end());
    if (!log_probs) p.log_sum_exp = item.log_sum_exp;
    p.greedy.assign(item.greedy.begin(), item.greedy.end());
    p.dropped_shots = job.mmlu.shots - item.shots;
  }
  return row;
}

EvalRow task_row(const EvalJob& job, const SubjectModel& subject, const Task& task, const TaskData& data,
                 const TaskReport& report, const std::string& started_at, double seconds) {
  EvalRow row = start_row(job, subject, started_at, seconds);
  row.task.name = task.name;
  row.task.version = task.version + "-" + job.data_hash.substr(0, 12);
  row.task.kind = stored_kind(task.kind);
  for (const TaskScore& s : report.scores) {
    const std::string metric = s.filter == "none" ? s.metric : s.metric + "[" + s.filter + "]";
    row.aggregates.push_back({metric, s.group, s.n, s.value, s.standard_error});
  }
  for (const TaskItemResult& result : report.results) {
    const TaskItem& item = data.items[result.item];
    PredictionRow& p = row.predictions.emplace_back();
    p.subject = item.group;
    p.ordinal = item.index;
    p.prompt = digest_from_hex(result.prompt_sha256);
    p.gold = item.gold;
    p.correct = is_right(task, item, result);
    p.pred = task.kind == TaskKind::generate ? (p.correct ? 0 : -1) : result.prediction;
    p.scores = result.log_likelihoods;
    p.greedy.assign(result.greedy.begin(), result.greedy.end());
    if (task.kind != TaskKind::generate) continue;
    for (const MetricValue& v : result.values) p.scores.push_back(static_cast<float>(v.value));
    p.text = result.text;
    for (size_t f = 0; f < task.filters.size(); ++f)
      p.extracted.push_back({task.filters[f].name, result.extracted[f]});
  }
  return row;
}

MmluReport recalled_report(const MmluData& data, const MmluOptions& options, const MmluPlan& plan,
                           std::span<const PredictionRow> rows) {
  const StoredItems stored(rows);
  MmluReport report = start_report(plan, options);
  for (MmluItem& item : report.items) {
    const PredictionRow& p = stored.find("mmlu", item.subject, item.index, item.prompt_sha256);
    item.prediction = static_cast<int>(p.pred);
    item.correct = p.correct;
    item.log_sum_exp = p.log_sum_exp.value_or(0);
    for (size_t i = 0; i < 4; ++i) {
      item.logits[i] = p.scores.at(i);
      item.log_probs[i] = static_cast<float>(static_cast<double>(p.scores[i]) - item.log_sum_exp);
      item.greedy[i] = p.greedy.at(i) != 0;
    }
  }
  summarize_mmlu(report, data, options);
  return report;
}

TaskReport recalled_report(const Task& task, const TaskData& data, const TaskPlan& plan,
                           std::span<const PredictionRow> rows) {
  const StoredItems stored(rows);
  std::vector<ItemAnswer> answers;
  size_t lo = 0;
  for (size_t index : plan.asked) {
    size_t hi = lo;
    while (hi < plan.requests.size() && plan.requests[hi].item == index) ++hi;
    const TaskItem& item = data.items[index];
    const PredictionRow& p = stored.find(task.name, item.group, item.index,
                                         item_hash(std::span(plan.requests).subspan(lo, hi - lo)));
    lo = hi;
    ItemAnswer& answer = answers.emplace_back();
    answer.text = p.text.value_or("");
    if (task.kind == TaskKind::generate) continue;
    answer.log_likelihoods = p.scores;
    answer.greedy.assign(p.greedy.begin(), p.greedy.end());
  }
  return report_task(task, data, plan, answers);
}

EvalRow loss_row(const EvalJob& job, const SubjectModel& subject, double loss, int64_t labels,
                 const std::string& started_at, double seconds) {
  EvalRow row = start_row(job, subject, started_at, seconds);
  row.task.name = "loss";
  row.task.version = "held-out-" + job.data_hash.substr(0, 12);
  row.task.kind = "perplexity";
  row.aggregates.push_back({"loss", "", labels, loss, std::nullopt});
  return row;
}

StepScores logged_scores(const RunConfig& config, const EvalJob& job,
                         std::span<const AggregateRow> aggregates) {
  StepScores scores;
  if (job.step == 0 || !is_own(config, job)) return scores;
  for (const AggregateRow& a : aggregates)
    if (const std::string name = logged_name(job, a); !name.empty() && std::isfinite(a.value))
      scores[name] = a.value;
  return scores;
}

}  // namespace qlora
