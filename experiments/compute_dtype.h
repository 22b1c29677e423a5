#pragma once
// What `compute_dtype: auto` stands for.

#include <string>
#include <vector>

#include "experiments/plan.h"
#include "results/store.h"

namespace qlora {

// The sweep as it is where nothing of it is stored yet: its automatic runs in the type that is fastest there
// (best_compute_dtype).
Sweep declared_anew(Sweep, const PlannedDevice&);

// Plans the sweep's runs. What `auto` stands for is decided once, when a sweep is first declared: where the
// store (null: there is none) has its automatic runs in another type only, because another machine declared
// it, they are planned in that one. Returns why the first run has its type, in words; empty when the type was
// given.
std::string settle_compute_dtype(Planner&, const Sweep&, const Store*, std::vector<PlannedRun>& runs);

}  // namespace qlora
