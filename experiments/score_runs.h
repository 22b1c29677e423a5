#pragma once
// Trained runs scored again, all together: one loaded base, all adapters in the same passes, as many at a
// time as the memory allows. What comes out is stored as a sweep's own evaluations are, and an interrupted
// pass goes on where it was.

#include <string>
#include <vector>

#include "experiments/evals.h"
#include "experiments/job.h"
#include "results/store.h"

namespace qlora {

struct ScoreRunsOptions {
  Path db = "results.db";
  std::vector<std::string> runs;  // "sweep=NAME", names, beginnings of keys
  std::vector<EvalSpec> evals;    // mmlu and tasks of the registry: each run is asked all of them together
  std::string memory = {};        // as for place_of
  std::string backend = "auto";
  int threads = 0;
  bool json = false;
};

// The runs that are meant, each once, in order. A sweep's runs that have not ended are left out and named in
// `notes`; any other is Error(usage), as are unknown names, and a choice without a trained run.
std::vector<RunInfo> choose_runs(const Store&, const std::vector<std::string>& names,
                                 std::vector<std::string>& notes);

// Where a run's final adapter lies: below its output_dir, in the folder of whichever sweep trained it. Empty
// when it is not there.
Path find_adapter(const RunConfig&, const Digest& run);

struct ScoredRun {
  std::string name;
  RunConfig config;
  Path adapter;
  std::vector<Digest> keys;  // of the evaluations, one an eval, in their order
};
struct RunsScored {
  int exit_code = 0;
  std::vector<ScoredRun> runs = {};  // all that were meant
};

// Scores what the store does not have; throws Error(memory) for a run that does not fit. Prints a table a
// task (or JSON lines: first `launch`, what is to do; last `done` with the tables: `scores`, a list of rows,
// or with several tasks one by name; of MMLU with subjects and groups). The exit code: 0, 1 when an
// evaluation failed, 130 or 143 when stopped.
RunsScored score_runs(const ScoreRunsOptions&);

}  // namespace qlora
