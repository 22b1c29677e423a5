#include "core/train/pack.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/models/batch_loss.h"
#include "core/ops/ops.h"
#include "core/train/collate.h"

namespace qlora {
namespace {

// `who` for messages: "run X", or what else the examples belong to.
void check_examples(const std::string& who, std::span<const TokenExample> examples, const HfConfig& config) {
  for (const TokenExample& example : examples) {
    const auto length = static_cast<int64_t>(example.ids.size());
    QLORA_CHECK(length <= config.max_positions, data,
                "{}: an example of {} tokens, but the model takes {} (max_position_embeddings); lower "
                "source_max_len or target_max_len",
                who, length, config.max_positions);
    for (int32_t id : example.ids)
      QLORA_CHECK(
          id >= 0 && id < config.vocab_size, data,
          "{}: token {} is outside the model's vocabulary of {}: do the tokenizer and the model belong "
          "together?",
          who, id, config.vocab_size);
  }
}

}  // namespace

TrainPack::TrainPack(std::shared_ptr<const Model> model, Memory& memory, PackOptions options)
    : model_(std::move(model)), memory_(memory), options_(options) {
  QLORA_CHECK(model_ != nullptr, failure, "a pack needs a model");
}

void TrainPack::add(std::unique_ptr<Run> run) {
  QLORA_CHECK(find(run->id()) == nullptr, failure, "run {} is in the pack already", run->id());
  runs_.push_back(std::move(run));
}

std::unique_ptr<Run> TrainPack::take(const std::string& id) {
  auto it = std::find_if(runs_.begin(), runs_.end(), [&](const auto& run) { return run->id() == id; });
  QLORA_CHECK(it != runs_.end(), failure, "no run {} in the pack", id);
  std::unique_ptr<Run> run = std::move(*it);
  runs_.erase(it);
  return run;
}

Run* TrainPack::find(const std::string& id) {
  for (auto& run : runs_)
    if (run->id() == id) return run.get();
  return nullptr;
}

bool TrainPack::active() const {
  return std::any_of(runs_.begin(), runs_.end(), [](const auto& run) { return run->active(); });
}

void TrainPack::micro_step(Observer& observer) {
  std::vector<Run*> runs;
  std::vector<Run::Micro> micros;
  for (auto& run : runs_)
    if (run->active())
      if (std::optional<Run::Micro> micro = run->next_micro()) {
        check_examples("run " + run->id(), micro->examples, model_->config());
        runs.push_back(run.get());
        micros.push_back(std::move(*micro));
      }
  if (runs.empty()) return;

  Batch batch = collate(runs, micros);
  batch.axis.validate(model_->config().vocab_size);
  std::vector<double> losses;
  {
    Tape tape;
    Context c{.backend = memory_.backend(),
              .memory = memory_,
              .axis = &batch.axis,
              .type = options_.type,
              .tape = &tape,
              .training = true,
              .checkpointing = options_.checkpointing};
    losses = batch_losses(c, *model_, batch);
  }
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunRows& rows = batch.runs[i];
    std::optional<StepRecord> record =
        runs[i]->absorb(example_losses(batch, rows, losses), rows.labels, rows.hi - rows.lo);
    if (record) observer.on_step(runs[i]->id(), *record);
  }
}

double EvalLoss::mean() const {
  QLORA_CHECK(labels > 0, data, "the held-out examples have no labels: nothing of them is learned");
  return loss_sum / static_cast<double>(labels);
}

EvalLoss evaluate_loss(const Model& model, Memory& memory, DType type, Adapter* adapter,
                       std::span<const TokenExample> examples, int64_t batch_size) {
  QLORA_CHECK(batch_size >= 1, usage, "the evaluation batch must be at least 1, found {}", batch_size);
  check_examples("the held-out examples", examples, model.config());
  EvalLoss out;
  const auto step = static_cast<size_t>(batch_size);
  for (size_t lo = 0; lo < examples.size(); lo += step) {
    Batch batch;
    append_span(batch, examples.subspan(lo, std::min(step, examples.size() - lo)), 0, {.adapter = adapter});
    batch.axis.validate(model.config().vocab_size);
    Context c{.backend = memory.backend(), .memory = memory, .axis = &batch.axis, .type = type};
    std::vector<double> losses = batch_losses(c, model, batch);
    for (double sum : example_losses(batch, batch.runs[0], losses)) out.loss_sum += sum;
    out.labels += batch.runs[0].labels;
  }
  return out;
}

}  // namespace qlora
