#pragma once
// One task of a command `qlora eval` that scores one model: from its data to its report.

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "eval/tasks/harness_files.h"
#include "experiments/evals.h"
#include "experiments/job.h"
#include "results/table.h"

namespace qlora {

// A report for people.
struct ShownScores {
  std::string what;  // "MMLU qlora val", "rte version 1.0"
  int64_t shots = 0;
  bool partial = false;
  Table table;
  std::vector<std::string> notes = {};
};

// A score in JSON reports.
Json score_json(double value, const std::optional<double>& standard_error, int64_t n);

class AskedTask {
 public:
  virtual ~AskedTask() = default;
  // What is asked; its key and step are the caller's.
  virtual EvalJob job() const = 0;
  // Makes the requests that the task can make without a model, so that bad ones cost nothing.
  virtual void plan(const Tokenizer&, int64_t context_length) = 0;
  virtual void ask(Lm&, const Tokenizer&, SubjectIndex) = 0;
  // Instead of ask(): takes the answers that the store has of an evaluation of the same questions.
  virtual void recall(std::span<const PredictionRow>) = 0;

  // After ask() or recall(). What goes into files of lm-evaluation-harness' layout lives as long as this
  // does; what belongs to the task (limit, templates) is added to the HarnessInfo.
  virtual EvalRow row(const EvalJob&, const SubjectModel&, const std::string& started,
                      double seconds) const = 0;
  virtual HarnessParts harness(const Tokenizer&, HarnessInfo&) = 0;
  virtual Json json(const EvalJob&, const SubjectModel&) const = 0;
  virtual ShownScores shown() const = 0;
};

// Reads the data. Throws Error(data) or Error(usage).
std::unique_ptr<AskedTask> make_asked_task(const EvalSpec&);
std::unique_ptr<AskedTask> make_asked_mmlu(const EvalSpec&);
std::unique_ptr<AskedTask> make_asked(const EvalSpec&);  // either

}  // namespace qlora
