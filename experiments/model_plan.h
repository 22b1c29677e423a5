#pragma once
// What training an adapter on a model takes, planned without its weights: from the sizes in config.json, by
// the code that plans every run.

#include <optional>
#include <string>

#include "experiments/plan.h"

namespace qlora {

struct ModelPlanSetup {
  Path model;          // a folder with weights, or one with config.json alone, or that file
  RunConfig config;    // all else that a run is told; `auto` stands for the fastest checkpointing that fits
  int64_t tokens = 0;  // of every example; all of them are learned
  PlannedDevice device = {};
  std::optional<size_t> usable = {};  // bytes that the plan should fit into
};

struct ModelPlan {
  ModelPlanSetup setup;
  bool weights = false;  // they are there
  HfConfig shape;
  int64_t frozen = 0, trained = 0;  // elements of the blocks' linears, and of the adapter
  Checkpointing checkpointing = Checkpointing::block;
  MemoryPlan memory;
  // Into what may be used, where that is said, and a GPU's host has room for what is pinned.
  bool fits() const { return fits_usable() && memory.host_has_room(); }
  bool fits_usable() const { return !setup.usable || memory.bytes() <= *setup.usable; }
};

// The run of this model that options (key=value) describe; what it learns from is not asked for.
RunConfig model_plan_config(const Path& model, const std::vector<std::string>& assignments);
// Throws Error of the kind that the first broken thing deserves.
ModelPlan plan_model(const ModelPlanSetup&);

std::string describe(const ModelPlan&);
std::string to_json_text(const ModelPlan&);

}  // namespace qlora
