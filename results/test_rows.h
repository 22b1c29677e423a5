#pragma once
// For tests of this folder: rows with contents that are easy to recognise.

#include <string>

#include "results/records.h"

namespace qlora::test {

inline Digest key_of(const std::string& text) {
  return sha256(text);
}

inline RunRow run_row(const std::string& name, int rank = 8, int seed = 0) {
  std::string config =
      R"({"model_name_or_path": "tiny", "dataset": "alpaca", "quant_type": "nf4", "lora_r": )" +
      std::to_string(rank) + R"(, "learning_rate": 2e-4, "seed": )" + std::to_string(seed) +
      R"(, "max_steps": 20})";
  return {key_of(name), name, config};
}

inline StepRow step_row(int64_t step, double loss) {
  return {step, loss, 0.5, 2e-4, 100, 60, 0.25};
}

inline SubjectModel run_subject(const std::string& name) {
  return {key_of(name), true, name, "tiny", "nf4"};
}
inline SubjectModel base_subject() {
  return {key_of("base"), false, "tiny (nf4)", "tiny", "nf4"};
}

// An evaluation of two subjects with two questions each; `right` of the four are correct.
inline EvalRow mmlu_row(const SubjectModel& subject, int64_t step, int right) {
  EvalRow row;
  row.subject = subject;
  row.step = step;
  row.key = key_of("mmlu" + subject.name + std::to_string(step));
  row.task = {"mmlu", "test", "choice", key_of("mmlu data")};
  row.protocol_json = R"({"name": "hendrycks", "shots": 5, "limit": 2})";
  row.seconds = 1.5;
  for (int i = 0; i < 4; ++i) {
    PredictionRow p;
    p.subject = i < 2 ? "anatomy" : "virology";
    p.ordinal = i % 2;
    p.prompt = key_of("prompt " + std::to_string(i));
    p.gold = i;
    p.pred = i < right ? i : (i + 1) % 4;
    p.correct = i < right;
    p.scores = {0.f, -1.f, -2.5f, 3.f};
    row.predictions.push_back(p);
  }
  row.aggregates = {{"acc", "", 4, right / 4.0, 0.2},
                    {"acc_macro", "", 2, right / 4.0, std::nullopt},
                    {"acc", "anatomy", 2, right >= 2 ? 1.0 : right / 2.0, 0.1}};
  return row;
}

inline EvalRow loss_row(const SubjectModel& subject, int64_t step, double loss) {
  EvalRow row;
  row.subject = subject;
  row.step = step;
  row.key = key_of("loss" + subject.name + std::to_string(step));
  row.task = {"loss", "alpaca", "perplexity", key_of("held out")};
  row.aggregates = {{"loss", "", 32, loss, 0.05}};
  return row;
}

// A verdict of gpt-4 on red (shown first) and blue.
inline VoteRow vote_row(const std::string& item, int score, int64_t line) {
  VoteRow row;
  row.judge = "gpt-4";
  row.item = item;
  row.system_a = "red";
  row.system_b = "blue";
  row.score = score;
  row.line = line;
  return row;
}

}  // namespace qlora::test
