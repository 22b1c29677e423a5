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

// One line each for what to try after a sweep.
std::string next_steps(const Sweep&, const WorkPlan&, const Path& db);

}  // namespace qlora
