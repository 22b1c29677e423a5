// MMLU, asked of one model.
#include <nlohmann/json.hpp>

#include "eval/tasks/mmlu_harness.h"
#include "eval/tasks/mmlu_rows.h"
#include "experiments/cli/asked_task.h"
#include "experiments/eval_rows.h"

namespace qlora {
namespace {

Json accuracy_json(const Accuracy& a) {
  return score_json(a.value, a.standard_error, a.n);
}

Json report_json(const MmluReport& report, const SubjectModel& subject, const MmluOptions& options,
                 const Digest& key) {
  Json subjects = Json::object();
  for (const auto& [name, accuracy] : report.subjects) subjects[name] = accuracy_json(accuracy);
  Json groups = Json::object();
  for (const auto& [name, accuracy] : report.groups) groups[name] = accuracy_json(accuracy);
  return {{"subject", subject.name},
          {"quant", subject.quant},
          {"protocol", options.protocol},
          {"split", options.split},
          {"shots", options.shots},
          {"limit", options.limit},
          {"key", hex(key)},
          {"partial", report.partial},
          {"micro", accuracy_json(report.micro)},
          {"macro", accuracy_json(report.macro)},
          {"answer_loss", report.answer_loss ? accuracy_json(*report.answer_loss) : Json(nullptr)},
          {"subjects", subjects},
          {"groups", groups},
          {"letter_ids", report.letter_ids},
          {"truncated_prompts", report.truncated_prompts},
          {"dropped_shots", report.dropped_shots},
          {"cut_tokens", report.cut_tokens},
          {"max_prompt_tokens", report.max_prompt_tokens},
          {"request_sha256", report.request_hash},
          {"warnings", report.warnings}};
}

ShownScores shown_report(const MmluReport& report, const MmluOptions& options) {
  ShownScores shown{
      fmt::format("MMLU {} {}", options.protocol, options.split), options.shots, report.partial, {}};
  shown.table.columns = {"subject", "accuracy", "se", "n"};
  auto add = [&](const std::string& name, const Accuracy& a) {
    shown.table.rows.push_back({name, a.value, a.standard_error ? Value(*a.standard_error) : Value(), a.n});
  };
  for (const auto& [name, accuracy] : report.subjects) add(name, accuracy);
  for (const auto& [name, accuracy] : report.groups) add(name, accuracy);
  add("all questions (micro)", report.micro);
  add("mean of subjects (macro)", report.macro);
  if (report.answer_loss) add("loss of letter and EOS", *report.answer_loss);
  if (report.macro_first)
    shown.notes.push_back(fmt::format("note: protocol {} publishes the mean of subjects", options.protocol));
  if (report.truncated_prompts > 0)
    shown.notes.push_back(fmt::format("{} prompts were too long and lost {} shots and {} tokens",
                                      report.truncated_prompts, report.dropped_shots, report.cut_tokens));
  for (const std::string& warning : report.warnings) shown.notes.push_back("note: " + warning);
  return shown;
}

class AskedMmlu final : public AskedTask {
 public:
  explicit AskedMmlu(const EvalSpec& eval)
      : path_(eval.data), options_(eval.mmlu), data_(read_mmlu(path_, options_)) {}

  EvalJob job() const override {
    return {{}, "mmlu", 0, mmlu_protocol(options_, is_rendered(data_)), path_, data_.content_hash, options_};
  }
  void plan(const Tokenizer& tokenizer, int64_t context_length) override {
    plan_ = plan_mmlu(data_, options_, tokenizer, context_length);
  }
  void ask(Lm& lm, const Tokenizer&, SubjectIndex who) override {
    report_ = run_mmlu(lm, plan_, data_, options_, std::span(&who, 1)).at(0);
  }
  void recall(std::span<const PredictionRow> rows) override {
    report_ = recalled_report(data_, options_, plan_, rows);
  }

  EvalRow row(const EvalJob& job, const SubjectModel& subject, const std::string& started,
              double seconds) const override {
    return mmlu_row(job, subject, report_, started, seconds);
  }
  HarnessParts harness(const Tokenizer& tokenizer, HarnessInfo& info) override {
    // The harness has no number for all subjects together; `n-samples` has each subject's.
    info.limit = options_.limit > 0 ? options_.limit : options_.samples;
    if (options_.chat_template == "own")
      info.chat_template = tokenizer.chat_template();
    else if (options_.chat_template != "none")
      info.chat_template = options_.chat_template;
    info.system_instruction = options_.system_instruction;
    info.fewshot_as_multiturn = asks_in_turns(options_);
    files_ = mmlu_harness(path_, data_, options_, tokenizer, report_);
    return {files_.views(), files_.groups};
  }
  Json json(const EvalJob& job, const SubjectModel& subject) const override {
    return report_json(report_, subject, options_, job.key);
  }
  ShownScores shown() const override { return shown_report(report_, options_); }

 private:
  std::string path_;
  MmluOptions options_;
  MmluData data_;
  MmluPlan plan_;
  MmluReport report_;
  MmluHarness files_;
};

}  // namespace

std::unique_ptr<AskedTask> make_asked_mmlu(const EvalSpec& eval) {
  return std::make_unique<AskedMmlu>(eval);
}

}  // namespace qlora
