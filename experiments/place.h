#pragma once
// Where runs compute: the backend, what is planned for there, and how much memory may be used.

#include <string>
#include <vector>

#include "experiments/plan.h"

namespace qlora {

struct Place {
  std::string backend;        // its own name
  PlannedDevice device = {};  // for Planner
  size_t budget = 0;          // bytes, of the memory in which it computes
  std::string note;           // of a backend that nobody named: why it is this one, in one line; else empty
};

// Whether a backend (auto, or a name) says a GPU, there or not.
bool names_gpu(const std::string& backend);

// Finds out what `backend` (auto, or a name) stands for, and what of its memory `memory` is: an amount or a
// percentage, as for parse_memory; empty: 80% of what a machine has available, 95% of what a GPU has. A GPU's
// driver takes a part first, which is measured. The emulated GPU has what the machine has, so it needs an
// amount. Throws Error(usage).
Place place_of(const std::string& backend, const std::string& memory);

// The GPU of a backend, as it was measured.
PlannedDevice planned_gpu(const std::string& backend, size_t context, ContextFigure);

// What a pack takes of a GPU's memory, before it starts; nothing where it computes on the processor.
std::vector<std::string> describe_memory(const Place&, const MemoryPlan&);
// Where the figure of the context is from: "measured".
std::string describe_context(const PlannedDevice&);
// What was chosen for products of many rows, and why: "through cuBLAS; a block's decoded weights stay, 410
// MiB".
std::string describe_products(const MemoryPlan&);

}  // namespace qlora
