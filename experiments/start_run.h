#pragma once
// Runs of a configuration, ready for their first step.

#include <memory>
#include <string>
#include <vector>

#include "core/train/pack.h"
#include "experiments/config.h"
#include "experiments/place.h"
#include "experiments/sweep.h"

namespace qlora {

// The run `id` at step 0: a new adapter, and a cursor over `examples` in the order that the configuration
// describes.
std::unique_ptr<Run> start_run(const RunConfig&, const std::string& id,
                               std::shared_ptr<const std::vector<TokenExample>> examples, const Model&,
                               Memory&, DType);

// How the configuration's runs share forward and backward.
PackOptions pack_options(const RunConfig&);

// What a sweep would train first: the memory of the place decides as in a sweep. Throws as a sweep does.
struct FirstPlan {
  std::vector<PlannedRun> runs;
  MemoryPlan memory;
};
FirstPlan plan_first(const Sweep&, const Place&);

// It, loaded in this process and stored nowhere: for measuring.
class FirstPack {
 public:
  // `steps` > 0 replaces max_steps so that every run goes on learning for that many steps of the run with the
  // most micro-batches.
  FirstPack(FirstPlan, Backend&, int64_t steps = 0);

  TrainPack& pack() { return *pack_; }
  Memory& memory() { return memory_; }
  const RunConfig& config() const { return runs_[0].config; }  // of the first run
  const std::vector<PlannedRun>& runs() const { return runs_; }
  std::vector<std::string> names() const;
  int64_t micro_steps() const { return micro_steps_; }  // of one step of the run with the most

 private:
  std::vector<PlannedRun> runs_;
  Memory memory_;
  int64_t micro_steps_ = 1;
  std::unique_ptr<TrainPack> pack_;
};

}  // namespace qlora
