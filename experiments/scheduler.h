#pragma once
// Runs a sweep: what the store does not have yet is planned into packs, every pack is done by one worker
// process, and what it sends is written here, by the only writer.

#include <memory>
#include <string>
#include <vector>

#include "experiments/answer_plan.h"
#include "experiments/plan.h"
#include "experiments/sweep.h"

namespace qlora {

class Store;

struct SweepOptions {
  Path db = "results.db";
  std::string backend = "auto";
  int threads = 0;          // 0: the default
  std::string memory = {};  // as for place_of
  bool retry_failed = false;
  bool json = false;  // JSON lines on stdout: launch, then what happens, then done
  bool quiet = false;
  std::string program = "qlora";  // as it was called; for commands that are shown
  bool one_run = false;           // ends with the code of what ended its worker
};

// What a sweep still lacks.
struct EvalNeed {
  size_t run = 0;  // index into WorkPlan::runs; of a base: the first run that stands on it
  bool of_base = false;
  Digest key{}, subject{};
  std::shared_ptr<const EvalSpec> spec;
  int64_t step = 0;
  std::string protocol, data_hash;
  bool done = false;
  bool gone = false;  // of a finished run, at an earlier step that no checkpoint is left of
};
enum class RunNeed { train, nothing, failed_before };
struct WorkPlan {
  std::vector<PlannedRun> runs;
  std::vector<Path> folders;         // by run: where its checkpoints and its adapter lie, or will
  std::vector<RunNeed> needs;        // by run
  std::vector<std::string> reasons;  // by run: why it failed before
  std::vector<EvalNeed> evals;
  AnswerPlan answers;
  std::vector<DataNote> notes;
  std::string
      compute_note;  // why the first run's `compute_dtype: auto` is what it is; empty when it was given
  int64_t to_train() const;
  int64_t to_score() const;
  bool is_open(const EvalNeed&) const;  // to be done now
  bool is_open(const AnswerNeed&) const;
  // Of the scores at earlier steps of finished runs that cannot be made any more; empty: none.
  std::string note_of_gone() const;
  // Runs that a worker must touch: to train, to score or to answer, or whose base has to.
  std::vector<const PlannedRun*> open_runs() const;
};

// Reads files; nothing is done yet. What `compute_dtype: auto` stands for is decided when a sweep is first
// declared: where the store (null: there is none) has this sweep with the same runs in another type, it
// keeps that one.
// `budget`: bytes that may be used (Planner::fit).
WorkPlan plan_work(Planner&, const Sweep&, const Store*, size_t budget);
// Asks the store (null: there is none) what is done by now.
void mark_done(WorkPlan&, const Store*, bool retry_failed);
// Refuses what does not fit into the budget. Returns the packs.
std::vector<PlannedPack> pack_work(Planner&, const WorkPlan&, size_t budget);
// What was found out about the data, and what the options of the first run came to; one line each.
std::vector<std::string> describe_settings(const WorkPlan&);

// The table of --dry-run: run, what is varied, key, memory, state.
std::string describe_plan(const Sweep&, const WorkPlan&, size_t budget);
std::string plan_json(const Sweep&, const WorkPlan&, const std::vector<PlannedPack>&, size_t budget);

// Where a sweep's and a run's files lie: OUT/<sweep>, OUT/<sweep>/<first digits of the key>-<name>.
Path sweep_folder(const Sweep&);
Path run_folder(const Sweep&, const PlannedRun&);

// Does everything; prints progress to stderr and the leaderboard (or JSON lines) to stdout. Returns the exit
// code: 0, 1 when a run or evaluation failed (of one run: an ErrorKind, 4 where there was no memory for it),
// 130 or 143 when stopped by SIGINT or SIGTERM.
int run_sweep(const Sweep&, const SweepOptions&);

}  // namespace qlora
