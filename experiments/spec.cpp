#include "experiments/spec.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace qlora {
namespace {

// Options whose value cannot matter, given the others.
bool has_effect(const Option& option, const RunConfig& config) {
  if (option.name == "quant_type" || option.name == "double_quant") return config.integer("bits") != 32;
  if (option.name == "warmup_ratio") return config.integer("warmup_steps") == 0;
  return true;
}

// Where several values lead to the same numbers, the one that stands for all of them.
OptionValue representative(const Option& option, const RunConfig& config) {
  const OptionValue& value = config.at(option.name);
  if (option.name == "optim" && config.text("optim") == "paged_adamw_32bit")
    return std::string("adamw_torch");
  // Truncating and stopping give the same run whenever there is one.
  if (option.name == "overlong" && config.text("overlong") != "drop") return std::string("auto");
  return value;
}

int64_t semantics_of(const RunConfig& config) {
  return config.text("compute_dtype") == "f32" ? kSemantics : kBf16Semantics;
}

Json base_json(const RunConfig& config, const ContentHashes& content) {
  Json json = {{"semantics", semantics_of(config)},
               {"model", content.model},
               {"tokenizer", content.tokenizer},
               {"compute_dtype", config.text("compute_dtype")},
               {"bits", config.integer("bits")}};
  if (config.integer("bits") != 32) {
    json["quant_type"] = config.text("quant_type");
    json["double_quant"] = config.flag("double_quant");
  }
  return json;
}

}  // namespace

std::string identity_text(const RunConfig& config, const ContentHashes& content,
                          std::span<const Option> table) {
  Json json = {{"semantics", semantics_of(config)},
               {"model", content.model},
               {"tokenizer", content.tokenizer},
               {"data", content.data}};
  for (const Option& option : table) {
    if (option.identity == Identity::out) continue;
    const std::string& text = option.since.empty() ? option.fallback : option.since;
    OptionValue since = text.empty() ? OptionValue(std::string()) : parse_option(option, text);
    // An option newer than the configuration has the value that changes nothing.
    if (!config.values().contains(option.name)) continue;
    OptionValue value = representative(option, config);
    if (!has_effect(option, config)) continue;
    if (option.identity == Identity::in && value == since) continue;
    json[option.name] = to_json(value);
  }
  return canonical(json);
}

Digest run_key(const RunConfig& config, const ContentHashes& content) {
  return sha256(identity_text(config, content));
}

Digest base_key(const RunConfig& config, const ContentHashes& content) {
  return sha256(canonical(base_json(config, content)));
}

std::string pack_key(const RunConfig& config, const ContentHashes& content) {
  Json json = base_json(config, content);
  json["gradient_checkpointing"] = config.text("gradient_checkpointing");
  json["max_tokens"] = config.integer("source_max_len") + config.integer("target_max_len");
  return canonical(json);
}

Digest evaluation_key(const Digest& subject, int64_t step, const std::string& task,
                      const std::string& protocol, const std::string& data) {
  Json json = {
      {"semantics", kSemantics}, {"subject", hex(subject)}, {"step", step}, {"task", task}, {"data", data}};
  json["protocol"] = parse_json(protocol, "protocol");
  return sha256(canonical(json));
}

std::string mmlu_protocol(const MmluOptions& options, bool rendered) {
  const MmluProtocol& protocol = mmlu_protocol_named(options.protocol);
  Json json = {{"name", options.protocol},
               {"version", protocol.version},
               {"split", options.split},
               {"shots", options.shots}};
  if (options.limit > 0) json["limit"] = options.limit;
  if (options.samples > 0) json["samples"] = options.samples;
  if (options.max_length > 0 && options.max_length != protocol.window)
    json["max_length"] = options.max_length;
  if (!options.subjects.empty()) {
    std::vector<std::string> subjects = options.subjects;
    std::sort(subjects.begin(), subjects.end());
    json["subjects"] = subjects;
  }
  // Scores from before this loss was reported do not stand for those with it.
  if (protocol.answer_loss) json["answer_loss"] = true;
  // What the protocol leaves to the user, where it is not as usual: older scores keep their keys.
  const MmluOptions usual;
  if (options.bos != usual.bos) json["bos"] = options.bos;
  if (options.chat_template != usual.chat_template) json["chat_template"] = options.chat_template;
  if (asks_in_turns(options)) json["fewshot_as_multiturn"] = true;
  if (!options.system_instruction.empty()) json["system_instruction"] = options.system_instruction;
  if (rendered) json["rendered"] = true;
  return canonical(json);
}

std::string task_protocol(const Task& task, const TaskData& data, const TaskOptions& options) {
  Json json = {
      {"name", task.protocol}, {"version", task.version}, {"shots", data.shots}, {"rows", kTaskRows}};
  if (!data.examples_hash.empty()) json["examples"] = data.examples_hash;
  // Scores with the first examples are older than the choice, and keep their keys.
  if (data.draw != FewshotDraw::first) {
    json["fewshot_sampler"] = "lm_eval";
    json["fewshot_seed"] = options.fewshot_seed;
  }
  if (options.limit > 0) json["limit"] = options.limit;
  if (options.max_length > 0) json["max_length"] = options.max_length;
  if (options.stride > 0) json["stride"] = options.stride;
  if (task.kind == TaskKind::generate)
    json["max_new_tokens"] = options.max_new_tokens > 0 ? options.max_new_tokens : task.max_new_tokens;
  if (!options.groups.empty()) {
    std::vector<std::string> groups = options.groups;
    std::sort(groups.begin(), groups.end());
    json["groups"] = groups;
  }
  return canonical(json);
}

std::string loss_protocol(const RunConfig& config) {
  return canonical({{"name", "held-out"}, {"examples", config.integer("eval_dataset_size")}});
}

}  // namespace qlora
