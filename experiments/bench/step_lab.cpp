#include "experiments/bench/step_lab.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "experiments/bench/child.h"

namespace qlora::bench {
namespace {

constexpr int64_t kMostRagged = 192;  // tokens of a ragged example, as in the golden files

// The examples in order, for ever.
class Cycle : public ExampleSource {
 public:
  explicit Cycle(std::vector<TokenExample> examples) : examples_(std::move(examples)) {}
  std::optional<TokenExample> next() override { return examples_[at_++ % examples_.size()]; }
  Json save() const override { return {{"at", at_}}; }
  void restore(const Json& state) override { at_ = state.at("at").get<size_t>(); }

 private:
  std::vector<TokenExample> examples_;
  size_t at_ = 0;
};

class Seen : public Observer {
 public:
  void on_step(const std::string&, const StepRecord& record) override {
    tokens += record.tokens;
    losses.push_back(record.loss);
  }
  int64_t tokens = 0;
  std::vector<double> losses;
};

MemoryPlan planned(const StepSpec& spec, const Path& model) {
  Planner planner;
  PlannedRun run;
  run.config = config_of(spec, model);
  if (spec.length > 0) {
    run.longest.assign(static_cast<size_t>(spec.batch), spec.length);
  } else {
    for (const TokenExample& e : ragged_examples(model).examples)
      run.longest.push_back(static_cast<int64_t>(e.ids.size()));
    std::sort(run.longest.rbegin(), run.longest.rend());
    run.longest.resize(std::min(run.longest.size(), static_cast<size_t>(spec.batch)));
  }
  std::vector<PlannedRun> runs(static_cast<size_t>(spec.runs), run);
  std::vector<const PlannedRun*> all;
  for (size_t i = 0; i < runs.size(); ++i) {
    runs[i].key[0] = static_cast<uint8_t>(i);  // runs of a pack differ in their ids
    all.push_back(&runs[i]);
  }
  return planner.memory_of(all);
}

Path golden_examples() {
  const char* folder = std::getenv("QLORA_GOLDENS");
  return Path(folder != nullptr ? folder : "../shared/goldens") / "smollm2/train_examples.json";
}

}  // namespace

std::string to_text(const StepSpec& s) {
  return fmt::format("{},{},{},{},{},{}", s.runs, s.batch, s.length, s.rank, s.checkpointing ? 1 : 0,
                     s.steps);
}

StepSpec step_from_text(const std::string& text) {
  std::array<int64_t, 6> v{};
  std::istringstream in(text);
  char comma = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    in >> v[i];
    if (i + 1 < v.size()) in >> comma;
  }
  QLORA_CHECK(!in.fail() && v[0] > 0 && v[1] > 0 && v[2] >= 0 && v[3] > 0 && v[5] > 0, usage,
              "--step: `{}` is not runs,batch,length,rank,checkpointing,steps", text);
  return {v[0], v[1], v[2], v[3], v[4] != 0, v[5]};
}

RunConfig config_of(const StepSpec& spec, const Path& model) {
  const std::pair<const char*, std::string> values[] = {
      {"model_name_or_path", model.string()},
      {"dataset", "-"},
      {"bits", "4"},
      {"quant_type", "nf4"},
      {"double_quant", "true"},
      {"lora_r", std::to_string(spec.rank)},
      {"lora_alpha", "16"},
      {"lora_dropout", "0.05"},
      {"lora_target_modules", "all"},
      {"per_device_train_batch_size", std::to_string(spec.batch)},
      {"gradient_accumulation_steps", "1"},
      {"max_steps", "1000000"},
      {"gradient_checkpointing", spec.checkpointing ? "true" : "false"},
  };
  Settings settings;
  for (const auto& [name, text] : values) settings[name] = {parse_option(*find_option(name), text), {}};
  return RunConfig(settings);
}

RaggedExamples ragged_examples(const Path& model) {
  RaggedExamples out;
  if (const Path golden = golden_examples(); std::filesystem::exists(golden)) {
    for (const Json& row : parse_json(read_file(golden), golden.string())) {
      TokenExample& e = out.examples.emplace_back();
      e.ids = row.at("input_ids").get<std::vector<int32_t>>();
      e.labels = row.at("labels").get<std::vector<int32_t>>();
    }
    out.origin = golden.filename().string() + " of the golden files";
    return out;
  }
  DatasetConfig config;
  config.path = "datasets/samples/alpaca_basics.json";
  config.source_max_len = config.target_max_len = kMostRagged / 2;
  out.examples = load_dataset(config, *load_tokenizer(model)).train;
  out.origin = config.path + " (no QLORA_GOLDENS)";
  return out;
}

std::vector<TokenExample> full_examples(int64_t count, int64_t length, int64_t vocab) {
  PhiloxStream random(7);
  std::vector<TokenExample> out;
  for (int64_t i = 0; i < count; ++i) {
    TokenExample e;
    for (int64_t t = 0; t < length; ++t)
      e.ids.push_back(static_cast<int32_t>(random.below(static_cast<uint32_t>(vocab))));
    e.labels = e.ids;
    out.push_back(std::move(e));
  }
  return out;
}

StepLab::StepLab(const Path& model, Backend& backend) : folder_(model), memory_(backend) {
  const LoadOptions options = load_options(config_of({}, model));
  type_ = options.type;
  model_ = load_model(model, memory_, options);
}

std::unique_ptr<TrainPack> StepLab::pack(const StepSpec& spec) {
  const RunConfig config = config_of(spec, folder_);
  auto pack = std::make_unique<TrainPack>(model_, memory_, pack_options(config));
  for (int64_t i = 0; i < spec.runs; ++i) {
    TrainConfig train = train_config(config);
    train.seed = static_cast<uint64_t>(i);
    const LoraConfig lora = lora_config(config);
    std::vector<TokenExample> examples =
        spec.length > 0 ? full_examples(spec.batch, spec.length, model_->config().vocab_size)
                        : ragged_examples(folder_).examples;
    pack->add(std::make_unique<Run>(std::to_string(i), lora, train,
                                    make_adapter(*model_, lora, memory_, type_, train.seed),
                                    std::make_unique<Cycle>(std::move(examples)), memory_, type_));
  }
  return pack;
}

int64_t StepLab::step(TrainPack& pack, std::vector<double>* losses) {
  Seen seen;
  pack.micro_step(seen);
  if (losses != nullptr) losses->insert(losses->end(), seen.losses.begin(), seen.losses.end());
  return seen.tokens;
}

double StepResult::tokens_per_second() const {
  std::vector<double> rates;
  for (size_t i = 0; i < seconds.size(); ++i) rates.push_back(static_cast<double>(tokens[i]) / seconds[i]);
  return median(rates);
}

StepResult measure_step(const Path& model, const std::string& backend_name, int threads,
                        const StepSpec& spec) {
  set_thread_count(threads);
  std::unique_ptr<Backend> backend = make_backend(backend_name);
  StepResult result;
  const MemoryPlan plan = planned(spec, model);
  result.planned_bytes = static_cast<double>(plan.bytes());
  {
    StepLab lab(model, *backend);
    lab.memory().reserve(plan.passing);
    std::unique_ptr<TrainPack> pack = lab.pack(spec);
    lab.step(*pack, &result.losses);
    for (int64_t i = 0; i < spec.steps; ++i) {
      const double begin = fair_seconds();
      result.tokens.push_back(lab.step(*pack, &result.losses));
      result.seconds.push_back(fair_seconds() - begin);
    }
    result.peak_bytes = static_cast<double>(peak_resident_memory());
  }
  return result;
}

Json to_json(const StepResult& r) {
  return {{"seconds", r.seconds},
          {"tokens", r.tokens},
          {"losses", r.losses},
          {"peak_bytes", r.peak_bytes},
          {"planned_bytes", r.planned_bytes}};
}

StepResult measure_in_child(Bench& bench, int threads, const StepSpec& spec) {
  Json json;
  ask_child({"bench", "--step", to_text(spec), "--model", bench.options().model.string(), "--backend",
             std::string(bench.backend().name()), "--threads", std::to_string(threads)},
            [&](const Json& answer) { json = answer; });
  StepResult result;
  result.seconds = json.at("seconds").get<std::vector<double>>();
  result.tokens = json.at("tokens").get<std::vector<int64_t>>();
  result.losses = json.at("losses").get<std::vector<double>>();
  result.peak_bytes = json.at("peak_bytes").get<double>();
  result.planned_bytes = json.at("planned_bytes").get<double>();
  return result;
}

std::string missing_model(const Path& folder) {
  if (std::filesystem::exists(folder / "config.json")) return "";
  return fmt::format("not measured: no model at {} (scripts/get_smollm2.sh, or --model)", folder.string());
}

}  // namespace qlora::bench
