#include "experiments/plan_base.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/lora/lora.h"
#include "core/models/weights.h"

namespace qlora {
namespace {

std::vector<int64_t> lengths_of(const std::vector<TokenExample>& examples) {
  std::vector<int64_t> lengths;
  for (const TokenExample& example : examples) lengths.push_back(static_cast<int64_t>(example.ids.size()));
  std::sort(lengths.rbegin(), lengths.rend());
  return lengths;
}

std::vector<int64_t> first(const std::vector<int64_t>& lengths, int64_t most) {
  const auto n = std::min(most, static_cast<int64_t>(lengths.size()));
  return {lengths.begin(), lengths.begin() + n};
}

// All that is said in a conversation but its answers.
std::vector<ChatMessage> longest_conversation(const Question& question, const GenerationSettings& settings) {
  std::vector<ChatMessage> messages;
  if (!settings.system.empty()) messages.push_back({"system", settings.system});
  messages.insert(messages.end(), question.before.begin(), question.before.end());
  for (const std::string& further : question.further) {
    messages.push_back({"assistant", ""});
    messages.push_back({"user", further});
  }
  return messages;
}

void note_answers(PlannedRun& run, int64_t answers, int64_t prompt_tokens, int64_t new_tokens) {
  run.answers = std::max(run.answers, answers);
  run.answer_prompt_tokens = std::max(run.answer_prompt_tokens, prompt_tokens);
  run.answer_tokens = std::max(run.answer_tokens, new_tokens);
}

}  // namespace

PlanBase& Planner::base_of(const RunConfig& config) {
  const std::string& folder = config.text("model_name_or_path");
  LoadOptions options = load_options(config);
  options.shapes_only = true;
  std::string name = fmt::format("{}\n{} {} {}", folder, static_cast<int>(options.quant.format),
                                 options.quant.double_quant, static_cast<int>(options.operands));
  std::shared_ptr<PlanBase>& base = bases_[name];
  if (base == nullptr) {
    base = std::make_shared<PlanBase>(device_.kernels);
    base->type = options.type;
    // Of addresses: everything lies in one piece, as in a worker whose room costs memory.
    if (device_.kernels == CountedKernels::cuda) base->memory.reserve_lasting(kAddresses);
    const bool alone = std::filesystem::is_regular_file(folder);
    base->model =
        alone ? shapes_of_model(folder, base->memory, options) : load_model(folder, base->memory, options);
    base->loading = base->memory.held() +
                    loading_bytes(alone ? announced_weights(folder) : ModelFolder(folder), options.quant);
  }
  return *base;
}

const Model& Planner::model_of(const RunConfig& config) {
  return *base_of(config).model;
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
  info.lengths = lengths_of(loaded.train);
  info.eval_lengths = lengths_of(loaded.eval);
  process_ = std::max(process_, resident_memory());  // while the examples are there, as in the worker
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
    p.longest = first(data.lengths, config.integer("per_device_train_batch_size"));
    std::vector<EvalSpec> evals = own_evals(config);
    evals.insert(evals.end(), sweep.evals.begin(), sweep.evals.end());
    for (const EvalSpec& eval : evals)
      if (eval.task == "loss")
        p.longest_eval = first(data.eval_lengths, config.integer("per_device_eval_batch_size"));
    p.key = run_key(config, p.content);
    p.base = base_key(config, p.content);
    p.pack = pack_key(config, p.content);
    auto [first, fresh] = names.emplace(p.key, run.name);
    QLORA_CHECK(fresh, usage,
                "runs `{}` and `{}` are the same run: they differ only in what changes no number",
                first->second, run.name);
    match_targets(*base_of(config).model, config.list("lora_target_modules"));
    planned.push_back(std::move(p));
  }
  return planned;
}

void Planner::check_mmlu(PlannedRun& run, const MmluData& data, const MmluOptions& options) {
  const std::string& model = run.config.text("model_name_or_path");
  PromptTokens& tokens =
      mmlu_tokens_[fmt::format("{}\n{}\n{}", model, data.content_hash, mmlu_protocol(options))];
  MmluData first = data;
  int64_t questions = 0;
  for (MmluSubject& subject : first.subjects) {
    const auto asked = static_cast<int64_t>(subject.questions.size());
    questions += options.limit > 0 ? std::min(asked, options.limit) : asked;
    if (subject.questions.size() > 2) subject.questions.resize(2);
  }
  if (options.samples > 0) questions = std::min(questions, options.samples);
  if (tokens.longest == 0) {
    const MmluPlan plan =
        plan_mmlu(first, options, *tokenizer_of(model), base_of(run.config).model->config().max_positions);
    const bool answers =
        std::any_of(plan.answers.begin(), plan.answers.end(), [](const auto& a) { return !a.empty(); });
    tokens.longest = plan.max_prompt_tokens + (answers ? 1 : 0);
    for (size_t i = 1; i < plan.items.size(); ++i) {
      if (plan.items[i].subject != plan.items[i - 1].subject) continue;
      const std::vector<int32_t>&a = plan.contexts[i - 1], &b = plan.contexts[i];
      tokens.shared = std::max<int64_t>(
          tokens.shared, std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
    }
  }
  run.mmlu_prompt_tokens = std::max(run.mmlu_prompt_tokens, tokens.longest);
  run.mmlu_shared_tokens = std::max(run.mmlu_shared_tokens, tokens.shared);
  run.mmlu_prompts = std::max(run.mmlu_prompts, questions);
}

void Planner::check_task(PlannedRun& run, const Task& task, const TaskData& data,
                         const TaskOptions& options) {
  const std::string& model = run.config.text("model_name_or_path");
  PromptTokens& tokens = mmlu_tokens_[fmt::format("{}\n{}\n{}\n{}", model, task.name, data.content_hash,
                                                  task_protocol(task, data, options))];
  if (tokens.requests == 0) {
    const TaskPlan plan = plan_task(task, data, options, *tokenizer_of(model),
                                    base_of(run.config).model->config().max_positions);
    tokens.longest = plan.longest;
    tokens.requests = static_cast<int64_t>(plan.requests.size());
    tokens.new_tokens = task.kind == TaskKind::generate ? plan.max_new_tokens : 0;
    for (size_t i = 1; i < plan.requests.size(); ++i) {
      if (plan.requests[i].item == plan.requests[i - 1].item) continue;
      const std::vector<int32_t>&a = plan.requests[i - 1].context_tokens,
            &b = plan.requests[i].context_tokens;
      tokens.shared = std::max<int64_t>(
          tokens.shared, std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
    }
  }
  if (task.kind == TaskKind::generate) {
    note_answers(run, tokens.requests, tokens.longest, tokens.new_tokens);
    return;
  }
  run.mmlu_prompt_tokens = std::max(run.mmlu_prompt_tokens, tokens.longest);
  run.mmlu_shared_tokens = std::max(run.mmlu_shared_tokens, tokens.shared);
  run.mmlu_prompts = std::max(run.mmlu_prompts, tokens.requests);
}

// A later turn's prompt has the answers before it, of any length.
void Planner::check_answers(PlannedRun& run, const QuestionFile& file, GenerationSettings& settings) {
  const std::string& model = run.config.text("model_name_or_path");
  const std::shared_ptr<const Tokenizer> tokenizer = tokenizer_of(model);
  settings.chat_template = chat_template_for(*tokenizer, settings.chat_template).name;
  PromptTokens& tokens = mmlu_tokens_[fmt::format("{}\n{} {}\n{}", model, hex(file.content),
                                                  file.questions.size(), settings_text(settings))];
  if (tokens.requests == 0) {
    const int64_t context = base_of(run.config).model->config().max_positions;
    for (const Question& question : file.questions) {
      const std::vector<ChatMessage> messages = longest_conversation(question, settings);
      const auto own = static_cast<int64_t>(
          encode_chat(chat_template_by_name(settings.chat_template), *tokenizer, messages, true).size());
      tokens.longest = std::max(tokens.longest, own + (question.turns() - 1) * settings.max_new_tokens);
    }
    tokens.longest = std::min(tokens.longest, context);
    tokens.requests = static_cast<int64_t>(file.questions.size());
  }
  note_answers(run, tokens.requests, tokens.longest, settings.max_new_tokens);
}

}  // namespace qlora
