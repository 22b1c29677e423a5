#pragma once
// What `qlora eval mmlu`, `qlora eval TASK` and `qlora eval TASK,TASK` have in common: one model, or trained
// runs of the store, asked one task or several together.

#include <string>
#include <vector>

#include "experiments/cli/cli.h"
#include "experiments/cli/loaded_model.h"
#include "experiments/evals.h"

namespace qlora {

struct ScoreArguments {
  ModelArguments model;
  std::vector<std::string> runs;  // instead of a model
  std::string memory = {};        // of runs
  std::string output;             // folder of files in lm-evaluation-harness' layout
  bool no_store = false;
};
void add_score_options(CLI::App&, Invocation&, ScoreArguments&);

// Requests of all tasks (and runs) are pooled: what they begin with in common is computed once, and an answer
// has the bits that it has when its task is asked alone. Answers are stored after every pass of the model, so
// that the same command goes on where it was stopped; a task's scores are stored when it is whole. Prints a
// report a task: JSON is one object, or with several tasks a list of them. Returns the exit code.
int score(const Invocation&, const ScoreArguments&, const std::vector<EvalSpec>&);

}  // namespace qlora
