#include "experiments/eval_rows.h"

#include <utility>

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

}  // namespace

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
  for (const auto& [name, accuracy] : report.subjects)
    row.aggregates.push_back(accuracy_row("acc", name, accuracy));
  for (const MmluItem& item : report.items) {
    PredictionRow& p = row.predictions.emplace_back();
    p.subject = item.subject;
    p.ordinal = item.index;
    p.prompt = digest_from_hex(item.prompt_sha256);
    p.gold = item.gold;
    p.pred = item.prediction;
    p.correct = item.correct;
    p.scores.assign(item.logits.begin(), item.logits.end());
    p.dropped_shots = job.mmlu.shots - item.shots;
  }
  return row;
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

}  // namespace qlora
