#pragma once
// Files in lm-evaluation-harness' layout, of one model or of each of several runs.

#include <memory>
#include <string>
#include <vector>

#include "experiments/cli/asked_task.h"
#include "experiments/cli/cli.h"
#include "experiments/cli/harness_info.h"
#include "experiments/score_runs.h"

namespace qlora {

// Of tasks that were asked, or whose answers were recalled.
void write_task_files(const Path& out, HarnessInfo, const Tokenizer&,
                      const std::vector<std::unique_ptr<AskedTask>>&);

// From what the store has of these runs: a folder each, named by its adapter, also of runs that were scored
// before. A run whose evaluations are not all there is named on stderr and has no files.
void write_run_files(const Invocation&, const Path& out, const std::vector<EvalSpec>&,
                     const std::vector<ScoredRun>&);

}  // namespace qlora
