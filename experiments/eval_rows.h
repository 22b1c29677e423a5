#pragma once
// From an evaluation's report to the row that the store keeps.

#include <span>
#include <string>

#include "eval/tasks/mmlu.h"
#include "eval/tasks/run_task.h"
#include "experiments/job.h"
#include "results/records.h"

namespace qlora {

// The aggregate over the whole task that its protocol publishes.
double main_score(const EvalRow&);

// Who is scored, as shown to users.
SubjectModel run_subject(const RunJob&, const Path& model);
SubjectModel base_subject(const Digest& key, const std::string& name, const Path& model,
                          const std::string& quant);
// "nf4", "nf4+dq", "fp4", ..., "none".
std::string quant_label(const RunConfig&);

EvalRow mmlu_row(const EvalJob&, const SubjectModel&, const MmluReport&, const std::string& started_at,
                 double seconds);
// A choice's scores are the log-likelihoods of the choices; a generated answer is kept as text, with what was
// read out of it, its scores are its values in the task's metrics, its prediction 0 when right and -1 when
// wrong.
EvalRow task_row(const EvalJob&, const SubjectModel&, const Task&, const TaskData&, const TaskReport&,
                 const std::string& started_at, double seconds);
// The other way: the report of an evaluation whose rows the store has, without a model. `plan` asks the same
// questions. Throws Error(failure) when it does not.
MmluReport recalled_report(const MmluData&, const MmluOptions&, const MmluPlan&,
                           std::span<const PredictionRow>);
TaskReport recalled_report(const Task&, const TaskData&, const TaskPlan&, std::span<const PredictionRow>);
// `loss`: mean per label token over `labels` label tokens of `examples` examples.
EvalRow loss_row(const EvalJob&, const SubjectModel&, double loss, int64_t labels,
                 const std::string& started_at, double seconds);

// What qlora.py's Trainer logs of an evaluation that a run's own options ask for: eval_loss; or mmlu_loss,
// mmlu_eval_accuracy (the mean over subjects) and that of each subject. Empty for any other, and before the
// first step; scores that are no numbers are left out.
StepScores logged_scores(const RunConfig&, const EvalJob&, std::span<const AggregateRow>);

}  // namespace qlora
