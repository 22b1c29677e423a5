#pragma once
// One experiment run while it learns: everything that changes, and nothing of the frozen model.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/lora/lora.h"
#include "core/text/example.h"
#include "core/train/observer.h"
#include "core/train/schedule.h"

namespace qlora {

struct TrainConfig {
  int64_t micro_batch = 1;          // examples per forward pass
  int64_t accumulation = 16;        // micro-batches per step
  int64_t max_steps = 1;
  double learning_rate = 2e-4;
  ScheduleKind schedule = ScheduleKind::constant;
  int64_t warmup_steps = 0;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0, max_grad_norm = 0.3;  // 0 = no clipping
  uint64_t seed = 0;
};

// Why a run ended.
enum class RunStatus { running, finished, nan_loss, no_labels };
const char* name_of(RunStatus);

class Run {
 public:
  Run(std::string id, LoraConfig, TrainConfig, std::unique_ptr<Adapter>, std::unique_ptr<ExampleSource>, Memory&, DType);
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  const std::string& id() const { return id_; }
  const TrainConfig& config() const { return config_; }
  const LoraConfig& lora() const { return lora_; }
  Adapter& adapter() { return *adapter_; }
  int64_t step() const { return step_; }  // optimizer steps done
  RunStatus status() const { return status_; }
  bool active() const { return status_ == RunStatus::running; }

  // The next micro-batch, and the index of its first example in the effective batch.
  struct Micro {
    std::vector<TokenExample> examples;
    int64_t first = 0;
  };
  Micro next_micro();
  // After the micro-batch's forward and backward: losses of its label rows. When the effective batch is complete,
  // does the optimizer step and returns its record; a NaN loss or a batch without labels ends the run instead.
  std::optional<StepRecord> absorb(double loss_sum, int64_t labels, int64_t tokens);

  // Adapter, optimizer, schedule, random streams, data position: into a folder that is written beside, flushed and
  // renamed. REQUIRES: between steps. restore() continues bit for bit.
  void save(const Path& folder) const;
  void restore(const Path& folder);

 private:
  struct State;
  std::string id_;
  LoraConfig lora_;
  TrainConfig config_;
  std::unique_ptr<Adapter> adapter_;
  std::unique_ptr<ExampleSource> source_;
  int64_t step_ = 0;
  RunStatus status_ = RunStatus::running;
  std::unique_ptr<State> state_;
};

}  // namespace qlora
