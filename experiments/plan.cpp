#include "experiments/plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/lora/lora.h"
#include "core/train/pack.h"

namespace qlora {
namespace {

// Examples of given lengths for ever: the worst micro-batch of a run.
class WorstBatch : public ExampleSource {
 public:
  explicit WorstBatch(std::vector<int64_t> lengths) : lengths_(std::move(lengths)) {}
  std::optional<TokenExample> next() override {
    TokenExample example;
    auto length = static_cast<size_t>(lengths_[at_++ % lengths_.size()]);
    example.ids.assign(length, 0);
    example.labels.assign(length, 0);
    return example;
  }
  Json save() const override { return Json::object(); }
  void restore(const Json&) override {}

 private:
  std::vector<int64_t> lengths_;
  size_t at_ = 0;
};

class Silent : public Observer {
  void on_step(const std::string&, const StepRecord&) override {}
};

}  // namespace

struct Planner::Base {
  std::unique_ptr<CountingBackend> backend = make_counting_backend();
  Memory memory{*backend};
  std::shared_ptr<const Model> model;
  DType type = DType::f32;
};

Planner::Base& Planner::base_of(const RunConfig& config) {
  const std::string& folder = config.text("model_name_or_path");
  LoadOptions options = load_options(config);
  options.shapes_only = true;
  std::string name = fmt::format("{}\n{} {} {}", folder, static_cast<int>(options.quant.format),
                                 options.quant.double_quant, static_cast<int>(options.operands));
  std::shared_ptr<Base>& base = bases_[name];
  if (base == nullptr) {
    base = std::make_shared<Base>();
    base->type = options.type;
    base->model = load_model(folder, base->memory, options);
  }
  return *base;
}

const std::string& Planner::model_hash(const std::string& folder) {
  std::string& hash = model_hashes_[folder];
  if (hash.empty()) hash = model_content_hash(folder);
  return hash;
}

std::shared_ptr<const Tokenizer> Planner::tokenizer_of(const std::string& folder) {
  std::shared_ptr<const Tokenizer>& tokenizer = tokenizers_[folder];
  if (tokenizer == nullptr) tokenizer = load_tokenizer(folder);
  return tokenizer;
}

const Planner::DataInfo& Planner::data_of(const RunConfig& config, const Tokenizer& tokenizer) {
  DatasetConfig dataset = dataset_config(config);
  std::string name =
      fmt::format("{}\n{}\n{} {} {} {} {} {} {}", dataset.path, dataset.format, dataset.source_max_len,
                  dataset.target_max_len, dataset.train_on_source, dataset.max_train_samples,
                  dataset.eval_dataset_size, name_of(dataset.overlong), tokenizer.content_hash());
  auto [it, fresh] = data_.try_emplace(name);
  if (!fresh) return it->second;
  Dataset loaded = load_dataset(dataset, tokenizer);
  DataInfo& info = it->second;
  info.hash = loaded.content_hash;
  info.format = loaded.format;
  for (const TokenExample& example : loaded.train)
    info.lengths.push_back(static_cast<int64_t>(example.ids.size()));
  std::sort(info.lengths.rbegin(), info.lengths.rend());
  DataNote note{dataset.path,
                fmt::format("{}: format {}, {}", dataset.path, loaded.format, describe(loaded.report))};
  auto same = [&](const DataNote& n) { return n.text == note.text; };
  if (std::none_of(notes_.begin(), notes_.end(), same)) notes_.push_back(note);
  return info;
}

std::vector<PlannedRun> Planner::plan(const Sweep& sweep) {
  std::vector<PlannedRun> planned;
  std::map<Digest, std::string> names;
  for (const SweepRun& run : sweep.runs) {
    const std::string folder = run.config.text("model_name_or_path");
    PlannedRun p;
    p.name = run.name;
    std::shared_ptr<const Tokenizer> tokenizer = tokenizer_of(folder);
    const DataInfo& data = data_of(run.config, *tokenizer);
    // A format that is recognised and the same format given are one run.
    p.config = run.config.with("dataset_format", data.format);
    const RunConfig& config = p.config;
    p.content = {model_hash(folder), tokenizer->content_hash(), data.hash};
    size_t batch =
        std::min(static_cast<size_t>(config.integer("per_device_train_batch_size")), data.lengths.size());
    p.longest.assign(data.lengths.begin(), data.lengths.begin() + static_cast<std::ptrdiff_t>(batch));
    p.key = run_key(config, p.content);
    p.base = base_key(config, p.content);
    p.pack = pack_key(config, p.content);
    auto [first, fresh] = names.emplace(p.key, run.name);
    QLORA_CHECK(fresh, usage,
                "runs `{}` and `{}` are the same run: they differ only in what changes no number",
                first->second, run.name);
    match_targets(*base_of(config).model, config.list("lora_target_modules"));
    p.memory = memory_of({&p});
    planned.push_back(std::move(p));
  }
  return planned;
}

void Planner::check_mmlu(const RunConfig& config, const MmluData& data, const MmluOptions& options) {
  MmluData first = data;
  for (MmluSubject& subject : first.subjects)
    if (subject.questions.size() > 1) subject.questions.resize(1);
  plan_mmlu(first, options, *tokenizer_of(config.text("model_name_or_path")),
            base_of(config).model->config().max_positions);
}

size_t Planner::memory_of(const std::vector<const PlannedRun*>& runs) {
  const RunConfig& first = runs.at(0)->config;
  Base& base = base_of(first);
  base.memory.reset_peak();
  PackOptions options;
  options.type = base.type;
  options.checkpointing = checkpointing(first);
  TrainPack pack(base.model, base.memory, options);
  for (const PlannedRun* planned : runs) {
    const RunConfig& config = planned->config;
    TrainConfig train = train_config(config);
    train.accumulation = 1;  // the optimizer's part of a step is counted too
    LoraConfig lora = lora_config(config);
    auto adapter = make_adapter(*base.model, lora, base.memory, base.type, train.seed);
    auto source = std::make_unique<WorstBatch>(planned->longest);
    pack.add(std::make_unique<Run>(hex(planned->key), lora, train, std::move(adapter), std::move(source),
                                   base.memory, base.type));
  }
  Silent silent;
  pack.micro_step(silent);
  return base.memory.peak();
}

std::vector<std::vector<const PlannedRun*>> Planner::pack(const std::vector<const PlannedRun*>& runs,
                                                          size_t budget) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<const PlannedRun*>> groups;
  for (const PlannedRun* run : runs) {
    QLORA_CHECK(run->memory <= budget, memory, "run `{}` needs {}; {} may be used (--memory)", run->name,
                format_bytes(run->memory), format_bytes(budget));
    if (!groups.contains(run->pack)) order.push_back(run->pack);
    groups[run->pack].push_back(run);
  }
  std::vector<std::vector<const PlannedRun*>> packs;
  for (const std::string& name : order) {
    std::vector<const PlannedRun*> rest = groups[name];
    while (!rest.empty()) {
      // The largest prefix that fits; one run always does. More runs never need less.
      size_t fits = 1, beyond = rest.size() + 1;
      for (size_t tried = rest.size(); fits + 1 < beyond; tried = (fits + beyond) / 2) {
        std::vector<const PlannedRun*> some(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(tried));
        (memory_of(some) <= budget ? fits : beyond) = tried;
      }
      packs.emplace_back(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(fits));
      rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(fits));
    }
  }
  return packs;
}

}  // namespace qlora
