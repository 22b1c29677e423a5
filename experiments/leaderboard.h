#pragma once
// Results as people read them in a terminal.

#include <string>

#include "experiments/scheduler.h"
#include "results/table.h"

namespace qlora {

// The columns that matter, without those that are empty or the same everywhere and without a name of their
// own.
std::string render_leaderboard(const Table& leaderboard);
std::string render_ratings(const Table& ratings);

// Commands to try after a sweep, one line each, to be pasted into a shell; `run` is a finished one.
std::string next_steps(const Sweep&, const PlannedRun& run, const Path& adapter, const SweepOptions&);

}  // namespace qlora
