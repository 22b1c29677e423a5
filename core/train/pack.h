#pragma once
// Several runs advanced by one forward and one backward over one shared model.

#include <memory>
#include <vector>

#include "core/train/run.h"

namespace qlora {

struct PackOptions {
  DType type = DType::f32;
  bool gradient_checkpointing = false;
};

// Examples of several runs on one axis: tokens, positions, keys, spans, targets (labels shifted by one).
Batch collate(std::span<Run* const> runs, std::span<const Run::Micro> micros);

class TrainPack {
 public:
  TrainPack(std::shared_ptr<const Model>, Memory&, PackOptions);
  void add(std::unique_ptr<Run>);  // between steps
  // One forward and backward for the active runs. REQUIRES: between calls nothing of a Run is changed from outside.
  void micro_step(Observer&);
  bool active() const;
  std::vector<std::unique_ptr<Run>>& runs() { return runs_; }
  Run* find(const std::string& id);

 private:
  std::shared_ptr<const Model> model_;
  Memory& memory_;
  PackOptions options_;
  std::vector<std::unique_ptr<Run>> runs_;
};

// Mean loss per label token of examples under an adapter (null: the base), without dropout: held-out loss.
struct EvalLoss {
  double loss_sum = 0;
  int64_t labels = 0;
  double mean() const { return labels == 0 ? 0 : loss_sum / static_cast<double>(labels); }
};
EvalLoss evaluate_loss(const Model&, Memory&, DType, Adapter*, std::span<const TokenExample>, int64_t batch);

}  // namespace qlora
