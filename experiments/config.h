#pragma once
// From what users wrote to one run's resolved configuration.

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/lora/lora.h"
#include "core/models/model.h"
#include "core/train/run.h"
#include "datasets/dataset.h"
#include "experiments/options.h"

namespace qlora {

// One option that was given, and where.
struct Setting {
  OptionValue value;
  Where where;
  bool yields = false;  // `load_in_4bit: false`: 32 bits unless something says which others
};
// By the option's own name.
using Settings = std::map<std::string, Setting, std::less<>>;

// One entry of a configuration as (option, value); `option` null when it says nothing (a harmless value of
// something that this build lacks, or an empty value). Throws Error(usage) for an unknown key, with the
// nearest one, and for values that this build cannot honour, saying what it can.
struct Entry {
  const Option* option = nullptr;
  OptionValue value;
  bool yields = false;  // as in Setting
};
Entry read_entry(const YamlNode::Entry&);

// Into the settings of one map, whose order says nothing: what yields gives way to `bits` and `quant_type`.
void give(Settings&, const Entry&, const Where&);
// Settings of a later map over those of earlier ones. A `load_in_4bit: false` takes back 4 bits and no
// others.
void override_with(Settings& earlier, const Settings& later);

// All entries of a map into `settings`; later calls override earlier ones. Two names of one option in one map
// are an error: nobody could say which one counts.
void read_settings(const YamlNode& map, Settings& settings);

// "key=value" of the command line, the value as in YAML. The origin of errors is the argument itself.
YamlNode::Entry parse_assignment(const std::string& assignment);

// Every option of one run, resolved: what was not given has its default, and `auto` is replaced by what was
// chosen.
class RunConfig {
 public:
  RunConfig() = default;
  // Throws Error(usage) naming what is missing or contradictory.
  explicit RunConfig(const Settings&);
  // From to_json()'s text (the worker's job, a stored run). Throws Error(data).
  static RunConfig from_json(const Json&);
  Json to_json() const;  // flat, all options

  const OptionValue& at(std::string_view name) const;
  bool flag(std::string_view name) const { return std::get<bool>(at(name)); }
  int64_t integer(std::string_view name) const { return std::get<int64_t>(at(name)); }
  double number(std::string_view name) const { return std::get<double>(at(name)); }
  const std::string& text(std::string_view name) const { return std::get<std::string>(at(name)); }
  const std::vector<std::string>& list(std::string_view name) const {
    return std::get<std::vector<std::string>>(at(name));
  }
  const std::map<std::string, OptionValue, std::less<>>& values() const { return values_; }
  // A copy with one value changed, unchecked.
  RunConfig with(const std::string& name, OptionValue) const;
  bool operator==(const RunConfig&) const = default;

 private:
  std::map<std::string, OptionValue, std::less<>> values_;
};

// The parts of a configuration as the levels below want them.
QuantConfig quant_config(const RunConfig&);
LoraConfig lora_config(const RunConfig&);
TrainConfig train_config(const RunConfig&);
DatasetConfig dataset_config(const RunConfig&);
Checkpointing checkpointing(const RunConfig&);
// How generated tokens are computed: decode_numerics fast is the class of token steps.
Numerics decode_numerics(const RunConfig&);
// Tokens that a step drafts, as GenerateOptions::drafts says them: prompt_lookup_num_tokens, -1 for auto.
int64_t drafts(const RunConfig&);
// How the run's base is loaded. Under compute_dtype bf16 and bf16_amx the operands of products are bf16; what
// is stored between them, and what learns, is f32 (kernels/README.md). QLORA_NO_CACHE in the environment,
// other than empty or 0, means base_cache: false.
LoadOptions load_options(const RunConfig&);

// How products read their operands under a compute_dtype; nothing for another name.
std::optional<Operands> operands_named(std::string_view compute_dtype);

// What `compute_dtype: auto` stands for on this machine: bf16_amx where the processor has AMX, bf16 where it
// has AVX512-BF16, else f32; on a GPU bf16. RunConfig resolves it for the processor; who computes on a GPU
// resolves it anew (declared_anew, base_config, judge_config).
std::string best_compute_dtype(bool on_gpu = false);
// Why, in words: "this processor has AMX".
std::string why_best_compute_dtype(bool on_gpu = false);

// One `name: value` per line, sorted, as YAML; what was not given is marked with where it comes from.
std::string print_config(const RunConfig&, const Settings& given);

}  // namespace qlora
