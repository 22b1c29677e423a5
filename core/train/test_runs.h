#pragma once
// For tests: an endless source of examples, and small runs on tiny models, all a pure function of seeds.

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/models/tiny_model.h"
#include "core/train/pack.h"
#include "kernels/test_backends.h"

namespace qlora::test {

// Gives the examples in order, again and again.
class CyclingSource final : public ExampleSource {
 public:
  explicit CyclingSource(std::vector<TokenExample> examples) : examples_(std::move(examples)) {}
  std::optional<TokenExample> next() override { return examples_[at_++ % examples_.size()]; }
  Json save() const override {
    return {{"at", at_}, {"epoch", static_cast<double>(at_) / static_cast<double>(examples_.size())}};
  }
  void restore(const Json& state) override { at_ = state.at("at"); }

 private:
  std::vector<TokenExample> examples_;
  size_t at_ = 0;
};

// Random tokens of ragged lengths; the first third of each example is no label.
inline std::vector<TokenExample> random_token_examples(uint64_t seed, int64_t count, int64_t vocab) {
  PhiloxStream random(mix_seed(seed, 5));
  std::vector<TokenExample> out;
  for (int64_t i = 0; i < count; ++i) {
    TokenExample e;
    const size_t length = 2 + random.below(22);
    for (size_t t = 0; t < length; ++t) {
      e.ids.push_back(static_cast<int32_t>(random.below(static_cast<uint32_t>(vocab))));
      e.labels.push_back(t < length / 3 ? -100 : e.ids.back());
    }
    out.push_back(std::move(e));
  }
  return out;
}

// Gives the examples once.
class EndingSource final : public ExampleSource {
 public:
  explicit EndingSource(std::vector<TokenExample> examples) : examples_(std::move(examples)) {}
  std::optional<TokenExample> next() override {
    return at_ < examples_.size() ? std::optional(examples_[at_++]) : std::nullopt;
  }
  Json save() const override { return {{"at", at_}}; }
  void restore(const Json& state) override { at_ = state.at("at"); }

 private:
  std::vector<TokenExample> examples_;
  size_t at_ = 0;
};

// What a run is made of, so that it can be made again.
struct RunPlan {
  std::string id;
  LoraConfig lora;
  TrainConfig train;
  std::vector<TokenExample> examples;
};

inline std::unique_ptr<Run> make_run(const RunPlan& plan, const Model& model, Memory& memory, DType type) {
  return std::make_unique<Run>(plan.id, plan.lora, plan.train,
                               make_adapter(model, plan.lora, memory, type, plan.train.seed),
                               std::make_unique<CyclingSource>(plan.examples), memory, type);
}

// Four runs that differ in all that may differ, with dropout 0.1 and ragged lengths.
inline std::vector<RunPlan> four_plans(int64_t vocab) {
  auto plan = [&](std::string id, LoraConfig lora, TrainConfig train) {
    return RunPlan{std::move(id), std::move(lora), train, random_token_examples(train.seed, 11, vocab)};
  };
  return {
      plan("a", {.r = 2, .alpha = 16, .dropout = 0.1f},
           {.micro_batch = 1, .accumulation = 3, .max_steps = 5, .learning_rate = 1e-2, .seed = 11}),
      plan("b", {.r = 8, .alpha = 8, .dropout = 0.1f, .targets = {"q_proj", "v_proj"}},
           {.micro_batch = 2,
            .accumulation = 2,
            .max_steps = 6,
            .learning_rate = 3e-3,
            .schedule = ScheduleKind::cosine,
            .warmup_steps = 2,
            .weight_decay = 0.1,
            .max_grad_norm = 0.01,
            .seed = 12}),
      plan("c", {.r = 4, .alpha = 32, .dropout = 0.1f, .use_rslora = true},
           {.micro_batch = 3,
            .accumulation = 1,
            .max_steps = 9,
            .learning_rate = 5e-3,
            .schedule = ScheduleKind::linear,
            .max_grad_norm = 0,
            .seed = 13}),
      plan("d", {.r = 3, .alpha = 6, .dropout = 0.1f, .targets = {"mlp.down_proj", "o_proj"}},
           {.micro_batch = 1, .accumulation = 4, .max_steps = 4, .learning_rate = 2e-2, .seed = 14}),
  };
}

class Recorder final : public Observer {
 public:
  std::map<std::string, std::vector<StepRecord>> steps;
  void on_step(const std::string& run, const StepRecord& record) override { steps[run].push_back(record); }
};

// All of a run that learning changes, to be compared bit for bit.
struct Outcome {
  std::vector<std::vector<double>> params;
  std::vector<double> losses, norms, rates;
  RunStatus status = RunStatus::running;
  bool operator==(const Outcome&) const = default;
};

inline Outcome outcome_of(Run& run, const Recorder& recorder) {
  Outcome out;
  for (Param* p : run.adapter().params()) out.params.push_back(p->value.to_doubles());
  if (auto it = recorder.steps.find(run.id()); it != recorder.steps.end())
    for (const StepRecord& r : it->second) {
      out.losses.push_back(r.loss);
      out.norms.push_back(r.grad_norm);
      out.rates.push_back(r.learning_rate);
    }
  out.status = run.status();
  return out;
}

// A tiny model with quantized linears on a backend of its own.
struct Lab {
  std::unique_ptr<Backend> backend;
  Memory memory;
  DType type;
  std::shared_ptr<const Model> model;

  explicit Lab(const std::string& name, DType t = DType::f32, Operands operands = Operands::as_stored)
      : backend(make_backend(name)),
        memory(*backend),
        type(t),
        model(load_tiny_model(
            memory, {},
            {.quant = {.format = Format::nf4, .double_quant = true}, .type = t, .operands = operands})) {}
  explicit Lab(const Variant& v) : Lab(v.backend, DType::f32, v.operands) {}

  std::unique_ptr<Run> run(const RunPlan& plan) { return make_run(plan, *model, memory, type); }
  TrainPack pack(Checkpointing checkpointing = Checkpointing::none) {
    return TrainPack(model, memory, {.type = type, .checkpointing = checkpointing});
  }
  std::vector<RunPlan> plans() const { return four_plans(model->config().vocab_size); }

  // Trains the plans together until all have ended; outcomes by id.
  std::map<std::string, Outcome> train(const std::vector<RunPlan>& plans,
                                       Checkpointing checkpointing = Checkpointing::none) {
    TrainPack together = pack(checkpointing);
    for (const RunPlan& plan : plans) together.add(run(plan));
    Recorder recorder;
    while (together.active()) together.micro_step(recorder);
    std::map<std::string, Outcome> out;
    for (auto& r : together.runs()) out[r->id()] = outcome_of(*r, recorder);
    return out;
  }
};

}  // namespace qlora::test
