#include "experiments/config.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/base/names.h"
#include "kernels/cpu/isa.h"

namespace qlora {
namespace {

std::string as_written(const YamlNode& node) {
  if (node.kind == YamlNode::Kind::null) return "none";
  if (node.kind == YamlNode::Kind::list && node.items.empty()) return "[]";
  return node.kind == YamlNode::Kind::scalar ? node.text : describe(node);
}

Entry translate(const Translation& translation, const YamlNode& node) {
  if (node.kind == YamlNode::Kind::scalar && node.text == "auto") return {};
  bool on = std::get<bool>(read_value(node, ValueKind::boolean, translation.key));
  const std::string& text = on ? translation.if_true : translation.if_false;
  if (text.empty()) return {};
  const Option* option = find_option(translation.option);
  return {option, parse_option(*option, text), translation.denies && !on};
}

bool yields(const Settings& settings, std::string_view name) {
  auto it = settings.find(name);
  return it != settings.end() && it->second.yields;
}

// A type of 4 bits says nothing here: configurations name one for the case that the base is quantized.
bool says_other_than_4_bits(const Settings& settings) {
  if (auto bits = settings.find("bits"); bits != settings.end())
    return bits->second.value != OptionValue(int64_t{4});
  auto type = settings.find("quant_type");
  return type != settings.end() && type->second.value == OptionValue(std::string(name_of(Format::int8)));
}

void refuse_unavailable(const Unavailable& unavailable, const YamlNode::Entry& entry) {
  std::string written = as_written(entry.value);
  bool harmless = written == "none" || std::find(unavailable.harmless.begin(), unavailable.harmless.end(),
                                                 written) != unavailable.harmless.end();
  QLORA_CHECK(harmless, usage, "{}: `{}: {}` is not in this build; {}", entry.where.text(), entry.key,
              written, unavailable.advice);
}

// int8 is the format of 8 bits: either of `bits` and `quant_type` says it. Its scales stay f32 unless asked
// for: `bits: 8` is the data type that is measured as int8, and bitsandbytes has no nested scales of 8 bits.
template <class Where>
void resolve_bits(std::map<std::string, OptionValue, std::less<>>& values, const Settings& given,
                  const Where& where) {
  auto& bits = std::get<int64_t>(values["bits"]);
  auto& type = std::get<std::string>(values["quant_type"]);
  const bool eight = type == name_of(Format::int8);
  if (bits == 32) return;
  if ((bits == 8 || eight) && !given.contains("double_quant")) values["double_quant"] = false;
  if ((bits == 8) == eight) return;
  QLORA_CHECK(
      !given.contains("bits") || !given.contains("quant_type"), usage,
      "{}: `bits: {}` and `quant_type: {}` exclude each other: int8 is the type of 8 bits; leave one of "
      "them out",
      where("quant_type"), bits, type);
  if (eight)
    bits = 8;
  else
    type = name_of(Format::int8);
}

// Other tools have a key of their own for what goes to the host.
template <class Where>
void resolve_offloading(std::map<std::string, OptionValue, std::less<>>& values, const Settings& given,
                        const Where& where) {
  auto& mode = std::get<std::string>(values["gradient_checkpointing"]);
  auto& offloads = std::get<bool>(values["activation_offloading"]);
  const bool named = mode == "offload";
  QLORA_CHECK(
      !named || offloads || !given.contains("activation_offloading"), usage,
      "{}: `gradient_checkpointing: offload` and `activation_offloading: false` exclude each other; leave "
      "one of them out",
      where("activation_offloading"));
  QLORA_CHECK(
      !offloads || named || mode == "block", usage,
      "{}: `activation_offloading: true` is of the inputs of blocks that are computed again: it needs "
      "`gradient_checkpointing: true`, found `{}`",
      where("activation_offloading"), mode);
  if (offloads) mode = "offload";
  offloads = mode == "offload";
}

// What `auto` stands for in this build, and what several options must satisfy together.
void resolve(std::map<std::string, OptionValue, std::less<>>& values, const Settings& given) {
  auto where = [&](std::string_view name) {
    auto it = given.find(name);
    return it == given.end() ? std::string(name) : it->second.where.text();
  };
  if (std::get<std::string>(values["compute_dtype"]) == "auto")
    values["compute_dtype"] = best_compute_dtype();
  resolve_bits(values, given, where);
  resolve_offloading(values, given, where);
  const std::string& format = std::get<std::string>(values["dataset_format"]);
  std::vector<std::string> formats = dataset_formats();
  QLORA_CHECK(format.empty() || std::find(formats.begin(), formats.end(), format) != formats.end(), usage,
              "{}: {}", where("dataset_format"), unknown_name("dataset format", format, formats));
  for (const char* beta : {"adam_beta1", "adam_beta2"})
    QLORA_CHECK(std::get<double>(values[beta]) < 1, usage, "{}: `{}` must be below 1", where(beta), beta);
  const bool loss = std::get<bool>(values["do_eval"]);
  const bool on_the_way = std::get<int64_t>(values["eval_steps"]) > 0;
  const std::string strategy = std::get<std::string>(values["eval_strategy"]);
  QLORA_CHECK(strategy != "steps" || on_the_way, usage,
              "{}: `eval_strategy: steps` needs to know when: give eval_steps above 0",
              where("eval_strategy"));
  QLORA_CHECK(strategy != "no" || !on_the_way, usage,
              "{}: `eval_strategy: no` and eval_steps above 0 exclude each other; leave one of them out",
              where("eval_strategy"));
  values["eval_strategy"] = on_the_way ? "steps" : "no";
  QLORA_CHECK(!on_the_way || loss || std::get<bool>(values["do_mmlu_eval"]), usage,
              "{}: `eval_steps` needs do_eval or do_mmlu_eval: true", where("eval_steps"));
  QLORA_CHECK(!loss || std::get<int64_t>(values["eval_dataset_size"]) > 0, usage,
              "{}: `do_eval` needs held-out examples: eval_dataset_size above 0", where("do_eval"));
  int64_t warmup = std::get<int64_t>(values["warmup_steps"]), steps = std::get<int64_t>(values["max_steps"]);
  QLORA_CHECK(warmup <= steps, usage, "{}: `warmup_steps: {}` is more than `max_steps: {}`",
              where("warmup_steps"), warmup, steps);
}

// A text as YAML reads it back.
std::string yaml_text(const std::string& text) {
  auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("._-+/").find(c) != std::string_view::npos;
  };
  bool bare = !text.empty() && std::isalpha(static_cast<unsigned char>(text[0])) != 0 &&
              std::all_of(text.begin(), text.end(), plain) && text != "null" && text != "Null" &&
              text != "NULL";
  if (bare) return text;
  std::string out = "\"";
  for (char c : text) out += c == '"' || c == '\\' ? std::string{'\\', c} : std::string(1, c);
  return out + "\"";
}

}  // namespace

Entry read_entry(const YamlNode::Entry& entry) {
  if (const Unavailable* unavailable = find_unavailable(entry.key)) {
    refuse_unavailable(*unavailable, entry);
    return {};
  }
  const Translation* translation = find_translation(entry.key);
  const Option* option = find_option_or_alias(entry.key);
  QLORA_CHECK(translation != nullptr || option != nullptr, usage, "{}: {}", entry.where.text(),
              unknown_name("key", entry.key, known_keys()));
  if (entry.value.kind == YamlNode::Kind::null) return {};
  if (translation != nullptr) return translate(*translation, entry.value);
  return {option, read_option(*option, entry.value)};
}

void give(Settings& settings, const Entry& entry, const Where& where) {
  const std::string& name = entry.option->name;
  if (entry.yields &&
      ((settings.contains("bits") && !yields(settings, "bits")) || settings.contains("quant_type")))
    return;
  if (name == "quant_type" && yields(settings, "bits")) settings.erase("bits");
  settings[name] = {entry.value, where, entry.yields};
}

void override_with(Settings& earlier, const Settings& later) {
  const bool keeps_bits = yields(later, "bits") && says_other_than_4_bits(earlier);
  if (later.contains("quant_type") && yields(earlier, "bits")) earlier.erase("bits");
  for (const auto& [name, setting] : later)
    if (name != "bits" || !keeps_bits) earlier[name] = setting;
}

void read_settings(const YamlNode& map, Settings& settings) {
  if (map.kind == YamlNode::Kind::null) return;
  QLORA_CHECK(map.kind == YamlNode::Kind::map, usage, "{}: expected `key: value` lines, found {}",
              map.where.text(), describe(map));
  std::map<std::string, std::string> seen;  // option → the key that gave it
  Settings own;
  for (const YamlNode::Entry& entry : map.entries) {
    Entry read = read_entry(entry);
    if (read.option == nullptr) continue;
    auto [first, fresh] = seen.emplace(read.yields ? entry.key : read.option->name, entry.key);
    QLORA_CHECK(fresh, usage, "{}: `{}` and `{}` are two names of one option (`{}`); keep one",
                entry.where.text(), first->second, entry.key, read.option->name);
    give(own, read, entry.value.where);
  }
  override_with(settings, own);
}

YamlNode::Entry parse_assignment(const std::string& assignment) {
  size_t equals = assignment.find('=');
  QLORA_CHECK(equals != std::string::npos && equals > 0, usage, "--set {}: expected key=value", assignment);
  YamlNode::Entry entry;
  entry.key = assignment.substr(0, equals);
  entry.where = {"--set " + assignment, 0, 0};
  entry.value = parse_yaml(assignment.substr(equals + 1), "--set " + assignment);
  return entry;
}

RunConfig::RunConfig(const Settings& settings) {
  for (const Option& option : options()) {
    if (auto it = settings.find(option.name); it != settings.end()) {
      values_[option.name] = it->second.value;
      continue;
    }
    QLORA_CHECK(!option.required, usage, "`{}` is not set: {}", option.name, option.help);
    values_[option.name] =
        option.fallback.empty() ? OptionValue(std::string()) : parse_option(option, option.fallback);
  }
  resolve(values_, settings);
}

RunConfig RunConfig::from_json(const Json& json) {
  RunConfig config;
  for (const Option& option : options()) {
    if (!json.contains(option.name)) {  // written before there was such an option: what was done then
      const std::string& before = option.since.empty() ? option.fallback : option.since;
      QLORA_CHECK(option.identity != Identity::always && !option.required, data,
                  "a run's configuration lacks `{}`", option.name);
      config.values_[option.name] = parse_option(option, before);
      continue;
    }
    const Json& value = json.at(option.name);
    // An option of words that was yes or no when this was written.
    config.values_[option.name] = value.is_boolean() && option.kind == ValueKind::text
                                      ? parse_option(option, value.get<bool>() ? "true" : "false")
                                      : option_value_from(value, option.kind, option.name);
  }
  return config;
}

Json RunConfig::to_json() const {
  Json json = Json::object();
  for (const auto& [name, value] : values_) json[name] = qlora::to_json(value);
  return json;
}

RunConfig RunConfig::with(const std::string& name, OptionValue value) const {
  RunConfig copy = *this;
  copy.values_[name] = std::move(value);
  return copy;
}

const OptionValue& RunConfig::at(std::string_view name) const {
  auto it = values_.find(name);
  QLORA_CHECK(it != values_.end(), failure, "no option is called `{}`", name);
  return it->second;
}

QuantConfig quant_config(const RunConfig& c) {
  QuantConfig quant;
  if (c.integer("bits") == 32) return quant;
  for (Format format : kFormats)
    if (name_of(format) == c.text("quant_type")) quant.format = format;
  quant.double_quant = c.flag("double_quant");
  return quant;
}

LoraConfig lora_config(const RunConfig& c) {
  LoraConfig lora;
  lora.r = c.integer("lora_r");
  lora.alpha = c.number("lora_alpha");
  lora.dropout = static_cast<float>(c.number("lora_dropout"));
  lora.targets = c.list("lora_target_modules");
  lora.use_rslora = c.flag("use_rslora");
  return lora;
}

// Of the device, for states that pass through it: copies of 8 MiB run at full speed.
constexpr size_t kSlabBytes = size_t{32} << 20;

TrainConfig train_config(const RunConfig& c) {
  TrainConfig train;
  train.micro_batch = c.integer("per_device_train_batch_size");
  train.accumulation = c.integer("gradient_accumulation_steps");
  train.max_steps = c.integer("max_steps");
  train.learning_rate = c.number("learning_rate");
  train.schedule = schedule_from_name(c.text("lr_scheduler_type"));
  train.warmup_steps = c.integer("warmup_steps");
  if (train.warmup_steps == 0)
    train.warmup_steps =
        static_cast<int64_t>(std::ceil(static_cast<double>(train.max_steps) * c.number("warmup_ratio")));
  train.beta1 = c.number("adam_beta1");
  train.beta2 = c.number("adam_beta2");
  train.epsilon = c.number("adam_epsilon");
  train.weight_decay = c.number("weight_decay");
  train.max_grad_norm = c.number("max_grad_norm");
  if (c.text("optim").starts_with("paged")) train.slab_bytes = kSlabBytes;
  train.eight_bit = c.text("optim") == "adamw_8bit";
  train.seed = static_cast<uint64_t>(c.integer("seed"));
  return train;
}

DatasetConfig dataset_config(const RunConfig& c) {
  DatasetConfig data;
  data.path = c.text("dataset");
  data.format = c.text("dataset_format");
  data.source_max_len = c.integer("source_max_len");
  data.target_max_len = c.integer("target_max_len");
  data.train_on_source = c.flag("train_on_source");
  data.max_train_samples = c.integer("max_train_samples");
  data.eval_dataset_size = c.integer("eval_dataset_size");
  data.group_by_length = c.flag("group_by_length");
  data.overlong = overlong_from_name(c.text("overlong"));
  data.data_seed = static_cast<uint64_t>(c.integer("data_seed"));
  return data;
}

Checkpointing checkpointing(const RunConfig& c) {
  return checkpointing_from_name(c.text("gradient_checkpointing"));
}

Numerics decode_numerics(const RunConfig& c) {
  return c.text("decode_numerics") == "exact" ? Numerics::exact : Numerics::decode;
}

int64_t drafts(const RunConfig& c) {
  const std::string& tokens = c.text("prompt_lookup_num_tokens");
  return tokens == "auto" ? -1 : std::stoll(tokens);
}

std::string best_compute_dtype(bool on_gpu) {
  if (on_gpu) return "bf16";
  if (cpu_has_amx_bf16()) return "bf16_amx";
  return cpu_has_avx512_bf16() ? "bf16" : "f32";
}

std::string why_best_compute_dtype(bool on_gpu) {
  if (on_gpu) return "a GPU multiplies bf16";
  if (cpu_has_amx_bf16()) return "this processor has AMX";
  return cpu_has_avx512_bf16() ? "this processor has AVX512-BF16" : "this processor has no AVX512-BF16";
}

std::optional<Operands> operands_named(std::string_view compute_dtype) {
  if (compute_dtype == "f32") return Operands::as_stored;
  if (compute_dtype == "bf16") return Operands::bf16;
  if (compute_dtype == "bf16_amx") return Operands::bf16_amx;
  return std::nullopt;
}

LoadOptions load_options(const RunConfig& c) {
  const std::string& type = c.text("compute_dtype");
  const auto operands = operands_named(type);
  QLORA_CHECK(operands, data, "compute_dtype {} is not in this build; it can: f32, bf16, bf16_amx", type);
  const char* no_cache = std::getenv("QLORA_NO_CACHE");
  const bool forbidden = no_cache != nullptr && *no_cache != '\0' && std::string_view(no_cache) != "0";
  return {.quant = quant_config(c), .operands = *operands, .cache = c.flag("base_cache") && !forbidden};
}

std::string print_config(const RunConfig& config, const Settings& given) {
  std::string out;
  for (const auto& [name, value] : config.values()) {
    std::string text = to_string(value);
    if (std::holds_alternative<std::string>(value)) text = yaml_text(text);
    const std::string& fallback = find_option(name)->fallback;
    const char* origin = given.contains(name)                 ? ""
                         : fallback.empty() && text != "\"\"" ? "  # from the data"
                                                              : "  # default";
    out += fmt::format("{}: {}{}\n", name, text, origin);
  }
  return out;
}

}  // namespace qlora
