// The memory that runs need: the real training step and the real evaluations on the counting backend.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/lora/lora.h"
#include "core/train/pack.h"
#include "eval/generation/answers.h"
#include "eval/lm.h"
#include "eval/model_lm/request_tree.h"
#include "experiments/model_judge.h"
#include "experiments/plan_base.h"

namespace qlora {
namespace {

TokenExample example_of(int64_t length) {
  TokenExample example;
  example.ids.assign(static_cast<size_t>(length), 0);
  example.labels.assign(static_cast<size_t>(length), 0);
  return example;
}

// Examples of given lengths for ever: the worst micro-batch of a run.
class WorstBatch : public ExampleSource {
 public:
  explicit WorstBatch(std::vector<int64_t> lengths) : lengths_(std::move(lengths)) {}
  std::optional<TokenExample> next() override { return example_of(lengths_[at_++ % lengths_.size()]); }
  Json save() const override { return Json::object(); }
  void restore(const Json&) override {}

 private:
  std::vector<int64_t> lengths_;
  size_t at_ = 0;
};

class Silent : public Observer {
  void on_step(const std::string&, const StepRecord&) override {}
};

void train_one_step(TrainPack& pack) {
  Silent silent;
  pack.micro_step(silent);
}

// The held-out loss of the worst batch of every run that asks for it.
void score_losses(PlanBase& base, const std::vector<Adapter*>& adapters,
                  const std::vector<const PlannedRun*>& runs) {
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i]->longest_eval.empty()) continue;
    std::vector<TokenExample> examples;
    for (int64_t length : runs[i]->longest_eval) examples.push_back(example_of(length));
    evaluate_loss(*base.model, base.memory, base.type, adapters[i], examples,
                  static_cast<int64_t>(examples.size()));
  }
}

// Planned passes are larger than the real ones by this factor: those differ from each other in their sizes,
// and leave gaps between what they allocate. More of them where what is kept is half as wide as what passes
// through (core/ops/kept_rows.h); the factor is that one for all.
constexpr double kGaps = 1.5;

// Questions of one subject model as they cost most: as many subjects as are kept at a time, in each some
// passages that questions share, and questions until a pass is full, each with `own` tokens of its own.
void add_mmlu_requests(const PlannedRun& run, SubjectIndex subject, int64_t own,
                       const ModelLmOptions& options, std::vector<NextTokenRequest>& requests) {
  const int64_t shared = std::min(run.mmlu_shared_tokens, run.mmlu_prompt_tokens - 1);
  const int64_t passage = (run.mmlu_prompt_tokens - shared) / 2;
  const int64_t subjects = options.max_prefix_tokens / std::max(shared, kShortestRun) + 1;
  const int64_t passages = passage < kShortestRun ? 0 : options.max_prefix_tokens / (subjects * passage) + 1;
  const int64_t questions = options.max_batch_tokens / (subjects * own) + 2;
  auto left = static_cast<int64_t>(kGaps * static_cast<double>(run.mmlu_prompts)) + 1;
  auto ask = [&](int64_t number, int64_t begin, int64_t passage_number, int64_t question) {
    if (left-- <= 0) return;
    NextTokenRequest r{{}, {0, 1, 2, 3}, subject};
    r.context.resize(static_cast<size_t>(std::min(begin + own, run.mmlu_prompt_tokens)),
                     static_cast<int32_t>(number));
    r.context[static_cast<size_t>(shared)] = static_cast<int32_t>(passage_number);
    r.context[static_cast<size_t>(begin)] = static_cast<int32_t>(question);
    requests.push_back(std::move(r));
  };
  for (int64_t s = 0; s < subjects; ++s) {
    for (int64_t p = 0; p < passages; ++p)
      for (int64_t q = 0; q < 4; ++q) ask(s, shared + passage, 4 + p, q);
    for (int64_t q = 0; q < questions; ++q) ask(s, shared, 0, 4 + passages + q);
  }
}

// The passes over questions of all runs: long ones, which fill passes with rows, and short ones, which fill
// them with copies of the ragged tile of what they share.
void score_mmlu(PlanBase& base, const std::vector<Adapter*>& of_runs,
                const std::vector<const PlannedRun*>& runs) {
  ModelLmOptions options;
  options.type = base.type;
  options.max_batch_tokens = static_cast<int64_t>(kGaps * static_cast<double>(options.max_batch_tokens));
  options.max_prefix_tokens = static_cast<int64_t>(kGaps * static_cast<double>(options.max_prefix_tokens));
  for (int64_t part : {1, 3}) {
    std::vector<Adapter*> adapters;
    std::vector<NextTokenRequest> requests;
    for (size_t i = 0; i < runs.size(); ++i) {
      const PlannedRun& run = *runs[i];
      if (run.mmlu_prompts == 0) continue;
      adapters.push_back(of_runs[i]);
      const int64_t own = std::max<int64_t>(1, (run.mmlu_prompt_tokens - run.mmlu_shared_tokens) / part);
      add_mmlu_requests(run, static_cast<SubjectIndex>(adapters.size()) - 1, own, options, requests);
    }
    // The tokenizer's ids may be few, but none is looked at here.
    for (NextTokenRequest& r : requests)
      for (int32_t& id : r.context) id %= static_cast<int32_t>(base.model->config().vocab_size);
    if (!requests.empty()) make_model_lm(base.model, base.memory, adapters, options)->next_token(requests);
  }
}

// Generated answers of all runs, as many at a time as there may be, each with the longest prompt: the cache
// has its full size from the first token on.
void generate(PlanBase& base, const std::vector<Adapter*>& adapters,
              const std::vector<const PlannedRun*>& runs) {
  const HfConfig& config = base.model->config();
  std::vector<GenerateRequest> requests;
  Generator generator{.model = *base.model,
                      .memory = base.memory,
                      .type = base.type,
                      .drafts = base.drafts,
                      .reuse_prefixes = false};
  // A step beyond the prompts: what that needs once is there from then on.
  std::vector<int> tokens;
  generator.on_token = [&](size_t request, int32_t) { return ++tokens[request] < 2; };
  for (const PlannedRun* run : runs)
    if (run->answers > 0) generator.numerics = std::max(generator.numerics, decode_numerics(run->config));
  for (size_t i = 0; i < runs.size(); ++i) {
    const PlannedRun& run = *runs[i];
    GenerateRequest request;
    request.max_new_tokens = run.answer_tokens;
    request.subject = static_cast<SubjectIndex>(i);
    request.context.resize(static_cast<size_t>(std::min(run.answer_prompt_tokens, config.max_positions - 1)));
    requests.insert(requests.end(), static_cast<size_t>(std::min(run.answers, generator.batch)), request);
  }
  tokens.resize(requests.size());
  generate_answers(generator, requests, [&](SubjectIndex i) { return adapters[static_cast<size_t>(i)]; });
}

MemoryParts parts_of(const PlanBase& base) {
  MemoryParts parts;
  for (const LinearInfo& linear : base.model->linears()) {
    const FrozenWeight* weight = base.model->find(linear.name)->plain();
    if (weight != nullptr && weight->parts().format != Format::dense) parts.quantized += weight->bytes();
  }
  const Memory& memory = base.memory;
  parts.dense = memory.at_peak(Tag::weights) - parts.quantized;
  parts.adapters = memory.at_peak(Tag::adapters);
  parts.gradients = memory.at_peak(Tag::gradients);
  parts.optimizer = memory.at_peak(Tag::optimizer);
  parts.activations = memory.at_peak(Tag::activations);
  parts.buffers = memory.at_peak(Tag::scratch);
  parts.logits = memory.peak(Tag::scratch);
  return parts;
}

}  // namespace

size_t MemoryPlan::bytes() const {
  if (device.kernels == CountedKernels::cuda)
    return device.context + Arena::taken_by(lasting) + Arena::taken_by(passing) + scratch + slabs;
  return process + std::max(loading, lasting + passing + scratch + paged);
}

MemoryPlan Planner::memory_of(const std::vector<const PlannedRun*>& runs) {
  return memory_of(runs, checkpointing(runs.at(0)->config));
}

MemoryPlan Planner::memory_of(const std::vector<const PlannedRun*>& runs, Checkpointing mode) {
  return memory_of(runs, mode, device_choices().front());
}

MemoryPlan Planner::memory_of(const std::vector<const PlannedRun*>& runs, Checkpointing mode,
                              const DeviceOptions& device) {
  const RunConfig& first = runs.at(0)->config;
  PlanBase& base = base_of(first);
  base.memory.trim();
  base.memory.reserve(kAddresses);  // everything lies in one piece, as in the worker
  base.memory.reserve_host(kAddresses);
  base.memory.reset_peak();
  base.backend->reset(device);
  PackOptions options;
  options.type = base.type;
  options.checkpointing = in_effect(mode);
  TrainPack pack(base.model, base.memory, options);
  std::vector<std::unique_ptr<Adapter>> trained;  // before, and only asked now
  std::vector<Adapter*> adapters;
  for (const PlannedRun* planned : runs) {
    const RunConfig& config = planned->config;
    TrainConfig train = train_config(config);
    train.accumulation = 1;  // the optimizer's part of a step is counted too
    LoraConfig lora = lora_config(config);
    auto adapter = make_adapter(*base.model, lora, base.memory, base.type, train.seed);
    adapters.push_back(adapter.get());
    if (planned->longest.empty()) {
      trained.push_back(std::move(adapter));
      continue;
    }
    auto source = std::make_unique<WorstBatch>(planned->longest);
    pack.add(std::make_unique<Run>(hex(planned->key), lora, train, std::move(adapter), std::move(source),
                                   base.memory, base.type));
  }
  if (trained.size() < runs.size()) train_one_step(pack);
  score_losses(base, adapters, runs);
  score_mmlu(base, adapters, runs);
  generate(base, adapters, runs);
  MemoryPlan plan = plan_of(base);
  plan.options = device;
  return plan;
}

// What the calls since the last reset of a base's counts come to.
MemoryPlan Planner::plan_of(const PlanBase& base) const {
  return {.process = process_ > 0 ? process_ : resident_memory(),
          .loading = base.loading,
          .lasting = base.memory.held_peak() - base.memory.held_passing(),
          .passing = base.memory.held_passing(),
          .scratch = base.backend->scratch_bytes(),
          .paged = base.memory.host_used(),
          .slabs = base.backend->slab_bytes(),
          .offloaded = base.memory.host_held_passing(),
          .decoded = base.backend->decoded_bytes() / static_cast<size_t>(base.model->config().layers),
          .parts = parts_of(base),
          .device = device_};
}

JudgeNeed Planner::judge_need(const JudgeSetup& setup, const std::string& text, int64_t more_tokens) {
  const std::string folder = folder_of(setup);
  PlanBase& base = base_of(judge_config(folder, device_.kernels == CountedKernels::cuda));
  const HfConfig& config = base.model->config();
  const std::shared_ptr<const Tokenizer> tokenizer = tokenizer_of(folder);
  const std::vector<ChatMessage> message = {{"user", text}};
  const auto own = static_cast<int64_t>(
      encode_chat(chat_template_for(*tokenizer, setup.chat_template), *tokenizer, message, true).size());
  QLORA_CHECK(own < config.max_positions, data,
              "its prompt of {} tokens, before any answer, leaves no room in a context of {}", own,
              config.max_positions);
  base.memory.trim();
  base.memory.reserve(kAddresses);
  base.memory.reset_peak();
  base.backend->reset({.blas = device_.blas});
  GenerateRequest request;
  request.context.resize(static_cast<size_t>(std::min(own + more_tokens, config.max_positions - 1)));
  request.max_new_tokens = setup.max_tokens;
  Generator generator = judge_generator(*base.model, base.memory, base.type);
  generator.drafts = base.drafts;
  generator.reuse_prefixes = false;
  std::vector<int> tokens(static_cast<size_t>(generator.batch));
  generator.on_token = [&](size_t i, int32_t) { return ++tokens[i] < 2; };
  generate_answers(generator, std::vector<GenerateRequest>(tokens.size(), request),
                   [](SubjectIndex) { return nullptr; });
  const MemoryPlan plan = plan_of(base);
  return {plan.bytes(), plan.passing, plan.lasting,
          std::max<int64_t>(0, own + more_tokens + setup.max_tokens - config.max_positions)};
}

}  // namespace qlora
