#pragma once
// One experiment run while it learns: everything that changes, and nothing of the frozen model.

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/lora/lora.h"
#include "core/text/example.h"
#include "core/train/observer.h"
#include "core/train/schedule.h"

namespace qlora {

struct TrainConfig {
  int64_t micro_batch = 1;    // examples per forward pass
  int64_t accumulation = 16;  // micro-batches per step
  int64_t max_steps = 1;
  double learning_rate = 2e-4;
  ScheduleKind schedule = ScheduleKind::constant;
  int64_t warmup_steps = 0;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  double max_grad_norm = 0.3;  // 0 = no clipping
  // Of the device, through which the optimizer's states pass from and to host memory; 0: they stay on it. The
  // numbers are the same.
  size_t slab_bytes = 0;
  bool eight_bit = false;  // the states are stored in eight bits (AdamW8); others have slabs, or none
  uint64_t seed = 0;
};

// Scores of a run's state at one step, by their names in log_history: eval_loss, mmlu_eval_accuracy, ...
using StepScores = std::map<std::string, double>;

// Why a run ended.
enum class RunStatus { running, finished, nan_loss, no_labels, no_data };
const char* name_of(RunStatus);

class Run {
 public:
  // The adapter's tensors and the optimizer's live in `memory` and are of one type. Throws Error(usage) for
  // impossible settings.
  Run(std::string id, LoraConfig, TrainConfig, std::unique_ptr<Adapter>, std::unique_ptr<ExampleSource>,
      Memory&, DType);
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

  // The next micro-batch, and the index of its first example in the effective batch. Nothing when the source
  // ends before max_steps: that ends the run as no_data, with what the last complete step made of it.
  struct Micro {
    std::vector<TokenExample> examples;
    int64_t first = 0;
  };
  std::optional<Micro> next_micro();
  // After the micro-batch's forward and backward: the summed loss of each example, and the micro-batch's
  // label and other tokens. When the effective batch is complete, does the optimizer step and returns its
  // record. A loss or gradient that is not a number ends the run as nan_loss and a batch without labels as
  // no_labels; the adapter then is what the last good step made of it.
  std::optional<StepRecord> absorb(std::span<const double> example_losses, int64_t labels, int64_t tokens);

  // Adapter (PEFT's layout; `base` is the model it belongs to), optimizer.safetensors, trainer_state.json
  // (with log_history, as Hugging Face writes it) and data_state.json: all that changes, since random numbers
  // are a function of seed, step and example. The folder is written beside, flushed and renamed. REQUIRES:
  // between steps.
  void save(const Path& folder, const std::string& base = "") const;
  // trainer_state.json alone, as a Trainer leaves it at its end.
  void save_history(const Path& file) const;
  // Continues bit for bit. A file that is missing, damaged, or of a run with another adapter or seed is an
  // Error(data), after which the run must not be used.
  void restore(const Path& folder);

  // An entry of log_history: scores of the state at a step, not empty, in the place of others of that step
  // whose first name is the same. Those of a step that is yet to come wait for it.
  void log_scores(int64_t step, const StepScores&);

 private:
  struct State;
  std::optional<StepRecord> update();  // the optimizer step
  void clear_batch();                  // forgets what the effective batch has gathered
  bool stop_if_broken(double loss_or_norm);
  std::string id_;
  LoraConfig lora_;
  TrainConfig config_;
  std::unique_ptr<Adapter> adapter_;
  std::unique_ptr<ExampleSource> source_;
  int64_t step_ = 0;
  RunStatus status_ = RunStatus::running;
  std::unique_ptr<State> state_;
};

// The same for a trainer_state.json that is written already. One that ends before the step stays as it is.
void add_scores(const Path& trainer_state, int64_t step, const StepScores&);

}  // namespace qlora
