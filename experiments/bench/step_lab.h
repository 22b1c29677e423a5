#pragma once
// Training steps to measure: SmolLM2 with one run or several, on examples of one length with every token a
// label, or on real ragged ones.

#include <memory>
#include <string>
#include <vector>

#include "experiments/bench/bench.h"
#include "experiments/start_run.h"

namespace qlora::bench {

struct StepSpec {
  int64_t runs = 1;
  int64_t batch = 4;     // examples of a run's step
  int64_t length = 512;  // tokens of each; 0: the ragged examples
  int64_t rank = 16;
  bool checkpointing = false;
  int64_t steps = 3;
};
// "--step 1,4,512,16,1,3" of a child process, and back. Throws Error(usage).
std::string to_text(const StepSpec&);
StepSpec step_from_text(const std::string&);

// The configuration of one of its runs: NF4 with double quantization, adapters on all linears, dropout 0.05.
RunConfig config_of(const StepSpec&, const Path& model);

// Real examples for the ragged rows, and where they come from: the golden files (QLORA_GOLDENS, or
// ../shared/goldens) or our own sample set.
struct RaggedExamples {
  std::vector<TokenExample> examples;
  std::string origin;
};
RaggedExamples ragged_examples(const Path& model);

// What the step rows train on: random tokens, every one a label.
std::vector<TokenExample> full_examples(int64_t count, int64_t length, int64_t vocab);

// One loaded base and packs on it.
class StepLab {
 public:
  StepLab(const Path& model, Backend&);
  std::unique_ptr<TrainPack> pack(const StepSpec&);
  // One optimizer step of all runs of the pack; returns its tokens. `losses`: where to put what they were.
  int64_t step(TrainPack&, std::vector<double>* losses = nullptr);
  Memory& memory() { return memory_; }

 private:
  Path folder_;
  Memory memory_;
  std::shared_ptr<const Model> model_;
  DType type_ = DType::f32;
};

// What a fresh process measured of itself.
struct StepResult {
  std::vector<double> seconds;  // of each step after the first
  std::vector<int64_t> tokens;
  std::vector<double> losses;  // of all steps, the first too; of a pack, its runs in order
  double peak_bytes = 0;       // resident, mapped file pages included
  double planned_bytes = 0;    // what the plan of a sweep says of such a run, before the start
  double tokens_per_second() const;
};
// In this process: what the child does. Prints nothing.
StepResult measure_step(const Path& model, const std::string& backend, int threads, const StepSpec&);
Json to_json(const StepResult&);
// In a fresh process of this program. Throws Error(failure) with what it said.
StepResult measure_in_child(Bench&, int threads, const StepSpec&);

// Nothing when the model is there, else why the row is missing.
std::string missing_model(const Path& folder);

}  // namespace qlora::bench
