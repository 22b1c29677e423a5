#pragma once
// What `compute_dtype: auto` stands for.

#include <string>
#include <vector>

#include "experiments/plan.h"
#include "results/store.h"

namespace qlora {

// It is decided once, when a sweep is first declared. Where the store (null: there is none) has this sweep's
// runs in the other type, because another machine declared it, `runs` are planned again in that one. Returns
// why the first run has its type, in words; empty when the type was given.
std::string settle_compute_dtype(Planner&, const Sweep&, const Store*, std::vector<PlannedRun>& runs);

}  // namespace qlora
