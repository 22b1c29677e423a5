#pragma once
// Several runs advanced by one forward and one backward over one shared model.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/ops/context.h"
#include "core/train/run.h"

namespace qlora {

struct PackOptions {
  DType type = DType::f32;
  Checkpointing checkpointing = Checkpointing::none;
};

// Examples of several runs on one axis: tokens, positions, keys, spans, targets (labels shifted by one). One
// micro-batch and one span for each run, in order.
Batch collate(std::span<Run* const> runs, std::span<const Run::Micro> micros);

class TrainPack {
 public:
  TrainPack(std::shared_ptr<const Model>, Memory&, PackOptions);
  // Between micro-steps; ids must differ. The run's tensors must live in the pack's memory.
  void add(std::unique_ptr<Run>);
  // One forward and backward for the active runs, and the optimizer step of those whose effective batch it
  // completes. What else is in the pack changes no bit of a run. An example that the model cannot take (too
  // long, or with tokens outside its vocabulary) is an Error(data) naming the run. REQUIRES: between calls
  // nothing of a Run is changed from outside.
  void micro_step(Observer&);
  bool active() const;
  std::vector<std::unique_ptr<Run>>& runs() { return runs_; }
  Run* find(const std::string& id);  // null: not here
  // Takes a run out, between micro-steps: to finish it, or to go on in another pack of the same memory.
  std::unique_ptr<Run> take(const std::string& id);

 private:
  std::shared_ptr<const Model> model_;
  Memory& memory_;
  PackOptions options_;
  std::vector<std::unique_ptr<Run>> runs_;
};

// Held-out loss.
struct EvalLoss {
  double loss_sum = 0;
  int64_t labels = 0;
  double mean() const;  // Error(data) without labels: that is no loss of 0
};
// Of examples under an adapter (null: the base model), without dropout, `batch` examples a forward pass.
EvalLoss evaluate_loss(const Model&, Memory&, DType, Adapter*, std::span<const TokenExample>, int64_t batch);

}  // namespace qlora
