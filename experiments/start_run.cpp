#include "experiments/start_run.h"

#include <algorithm>

#include "experiments/compute_dtype.h"

namespace qlora {
FirstPlan plan_first(const Sweep& sweep, const Place& place) {
  Planner planner(place.device);
  std::vector<PlannedRun> runs = planner.plan(declared_anew(sweep, place.device));
  planner.fit(runs, place.budget);
  std::vector<const PlannedRun*> all;
  for (const PlannedRun& run : runs) all.push_back(&run);
  const PlannedPack pack = planner.pack(all, place.budget).at(0);
  FirstPlan first{.runs = {}, .memory = pack.memory};
  for (const PlannedRun* run : pack.runs) {
    first.runs.push_back(*run);
    first.runs.back().config =
        run->config.with("gradient_checkpointing", std::string(name_of(pack.checkpointing)));
  }
  return first;
}

std::unique_ptr<Run> start_run(const RunConfig& config, const std::string& id,
                               std::shared_ptr<const std::vector<TokenExample>> examples, const Model& model,
                               Memory& memory, DType type) {
  TrainConfig train = train_config(config);
  LoraConfig lora = lora_config(config);
  // Like length inside an effective batch, so that how it is cut into micro-batches changes nothing.
  auto source = make_sampler(std::move(examples), static_cast<uint64_t>(config.integer("data_seed")),
                             config.flag("group_by_length"), train.micro_batch * train.accumulation);
  auto adapter = make_adapter(model, lora, memory, type, train.seed);
  return std::make_unique<Run>(id, lora, train, std::move(adapter), std::move(source), memory, type);
}

PackOptions pack_options(const RunConfig& config) {
  return {.type = load_options(config).type, .checkpointing = checkpointing(config)};
}

FirstPack::FirstPack(FirstPlan plan, Backend& backend, int64_t steps)
    : runs_(std::move(plan.runs)), memory_(backend) {
  // As a sweep's worker does: memory that grows with the longest batch so far would be had anew every time.
  memory_.reserve(plan.memory.passing);
  if (!backend.host_memory()) memory_.reserve_lasting(plan.memory.lasting);
  memory_.reserve_host(plan.memory.offloaded);
  const Path folder = config().text("model_name_or_path");
  const std::shared_ptr<const Tokenizer> tokenizer = load_tokenizer(folder);
  LoadOptions options = load_options(config());
  options.cache = false;  // stored nowhere
  const std::shared_ptr<const Model> model = load_model(folder, memory_, options);
  pack_ = std::make_unique<TrainPack>(model, memory_, pack_options(config()));
  for (const PlannedRun& run : runs_)
    micro_steps_ = std::max(micro_steps_, run.config.integer("gradient_accumulation_steps"));
  for (const PlannedRun& run : runs_) {
    auto examples = std::make_shared<const std::vector<TokenExample>>(
        load_dataset(dataset_config(run.config), *tokenizer).train);
    const RunConfig used = steps > 0 ? run.config.with("max_steps", steps * micro_steps_) : run.config;
    pack_->add(start_run(used, run.name, examples, *model, memory_, options.type));
  }
}

std::vector<std::string> FirstPack::names() const {
  std::vector<std::string> names;
  for (const PlannedRun& run : runs_) names.push_back(run.name);
  return names;
}

}  // namespace qlora
