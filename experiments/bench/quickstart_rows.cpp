// quickstart: the training part of the sweep that a first user runs, against the same runs by PEFT +
// bitsandbytes, one after another; and the examples of the benchmark as JSON, so that a peer trains on the
// same tokens.

#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/models/hf_config.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/peer_questions.h"
#include "experiments/bench/step_lab.h"

namespace qlora::bench {
namespace {

class Losses : public Observer {
 public:
  void on_step(const std::string& run, const StepRecord& record) override {
    by_run[run].push_back(record.loss);
  }
  Json by_run = Json::object();
};

Sweep quickstart(const Options& options) {
  return read_sweep(options.config, {"model_name_or_path=" + options.model.string()});
}

Json to_json(const TokenExample& e) {
  return {{"ids", e.ids}, {"labels", e.labels}};
}

}  // namespace

void quickstart_rows(Bench& bench) {
  const std::string name = "quickstart/training";
  if (!bench.wants(name)) return;
  Row row = missing_row(name, "sweeps/hour", bench.most_threads(), missing_model(bench.options().model));
  if (row.note.empty() && !std::filesystem::exists(bench.options().config))
    row.note = fmt::format("not measured: no {} (run in the source tree)", bench.options().config.string());
  if (row.note.empty()) {
    const double begin = now_seconds();
    FirstPack first(
        plan_first(quickstart(bench.options()), place_of(std::string(bench.backend().name()), "")),
        bench.backend());
    Losses losses;
    while (first.pack().active()) first.pack().micro_step(losses);
    const double seconds = now_seconds() - begin;
    row.ours = 3600 / seconds;
    bench.outcome(name, {{"losses", losses.by_run}});
    row.against = "PEFT + bitsandbytes (scripts/bench.sh --with-hf)";
    row.note =
        fmt::format("{} runs in {:.1f} s, loading and planning included", first.runs().size(), seconds);
  }
  row.goal = 4;
  bench.emit(std::move(row));
}

void export_examples(const Options& options, const Path& folder) {
  std::filesystem::create_directories(folder);
  Json ragged = Json::array();
  for (const TokenExample& e : ragged_examples(options.model).examples) ragged.push_back(to_json(e));
  write_file(folder / "ragged.json", ragged.dump());
  const StepSpec step;
  Json full = Json::array();
  for (const TokenExample& e :
       full_examples(step.batch, step.length, read_hf_config(options.model / "config.json").vocab_size))
    full.push_back(to_json(e));
  write_file(folder / "full.json", full.dump());
  // Every run's own examples, in the order in which it takes them.
  const auto tokenizer = load_tokenizer(options.model);
  Json runs = Json::array();
  for (const SweepRun& run : quickstart(options).runs) {
    const RunConfig& config = run.config;
    const TrainConfig train = train_config(config);
    auto examples = std::make_shared<const std::vector<TokenExample>>(
        load_dataset(dataset_config(config), *tokenizer).train);
    auto source = make_sampler(examples, static_cast<uint64_t>(config.integer("data_seed")),
                               config.flag("group_by_length"), train.micro_batch * train.accumulation);
    Json taken = Json::array();
    for (int64_t i = 0; i < train.max_steps * train.micro_batch * train.accumulation; ++i)
      taken.push_back(to_json(*source->next()));
    runs.push_back({{"name", run.name},
                    {"rank", config.integer("lora_r")},
                    {"alpha", config.number("lora_alpha")},
                    {"dropout", config.number("lora_dropout")},
                    {"learning_rate", train.learning_rate},
                    {"max_grad_norm", train.max_grad_norm},
                    {"batch", train.micro_batch},
                    {"steps", train.max_steps},
                    {"examples", taken}});
  }
  write_file(folder / "quickstart.json", runs.dump());
  if (missing_peer_questions().empty()) write_file(folder / "mmlu.json", peer_questions_json(options).dump());
}

}  // namespace qlora::bench
