#include "core/lora/peft_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/lora/build.h"

namespace qlora {
namespace {

// Keys that are read or checked below, and keys that say nothing about the result of this adapter.
constexpr const char* kHarmless[] = {
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
};

bool is_unset(const Json& value) {
  return value.is_null() || value == false ||
         ((value.is_object() || value.is_array() || value.is_string()) && value.empty());
}

[[noreturn]] void refuse(const Path& path, std::string_view key, const Json& value) {
  fail(ErrorKind::data, "{}: `{}`: {} is not supported", path.string(), key, value.dump());
}

// Initialisations that leave the base model's weights as they are.
bool keeps_base(const Json& init) {
  if (init.is_boolean() || init.is_null()) return true;
  return init == "gaussian" || init == "eva" || init == "orthogonal";
}

void check_supported(const Path& path, const Json& config) {
  for (const auto& [key, value] : config.items()) {
    if (is_unset(value)) continue;
    bool harmless = std::find(std::begin(kHarmless), std::end(kHarmless), key) != std::end(kHarmless);
    if (!harmless) refuse(path, key, value);
  }
  if (Json type = config.value("peft_type", Json()); type != "LORA") refuse(path, "peft_type", type);
  if (Json bias = config.value("bias", Json("none")); !bias.is_null() && bias != "none")
    refuse(path, "bias", bias);
  if (Json init = config.value("init_lora_weights", Json(true)); !keeps_base(init))
    refuse(path, "init_lora_weights", init);
}

double number(const Path& path, const Json& config, const char* key, double missing) {
  Json value = config.value(key, Json());
  if (value.is_null()) return missing;
  QLORA_CHECK(value.is_number(), data, "{}: `{}`: expected a number, found {}", path.string(), key,
              value.dump());
  return value.get<double>();
}

bool flag(const Path& path, const Json& config, const char* key) {
  Json value = config.value(key, Json());
  QLORA_CHECK(value.is_null() || value.is_boolean(), data, "{}: `{}`: expected true or false, found {}",
              path.string(), key, value.dump());
  return value.is_boolean() && value.get<bool>();
}

void read_targets(const Path& path, const Json& config, PeftConfig& out) {
  out.lora.targets.clear();
  Json targets = config.value("target_modules", Json());
  for (const char* key : {"exclude_modules", "layers_to_transform", "layers_pattern"})
    if (!is_unset(config.value(key, Json()))) return;
  if (targets == "all-linear") {
    out.lora.targets = {"all-linear"};
  } else if (targets.is_array()) {
    for (const Json& target : targets) {
      QLORA_CHECK(target.is_string(), data, "{}: `target_modules`: expected names, found {}", path.string(),
                  target.dump());
      out.lora.targets.push_back(target.get<std::string>());
    }
    std::sort(out.lora.targets.begin(), out.lora.targets.end());
  }
  out.targets_listed = !out.lora.targets.empty();
}

}  // namespace

PeftConfig read_peft_config(const Path& path) {
  Json config = parse_json(read_file(path), path.string());
  QLORA_CHECK(config.is_object(), data, "{}: expected an object", path.string());
  check_supported(path, config);
  PeftConfig out;
  // What PEFT takes where a key is absent: r 8, alpha 8, no dropout.
  double r = number(path, config, "r", 8);
  QLORA_CHECK(r >= 1 && r == std::floor(r) && r < 1e9, data,
              "{}: `r`: expected a whole number from 1, found {}", path.string(), r);
  out.lora.r = static_cast<int64_t>(r);
  out.lora.alpha = number(path, config, "lora_alpha", 8);
  out.lora.dropout = static_cast<float>(number(path, config, "lora_dropout", 0));
  out.lora.use_rslora = flag(path, config, "use_rslora");
  read_targets(path, config, out);
  return out;
}

std::string peft_config_text(const LoraConfig& config, const std::vector<std::string>& target_modules,
                             const std::string& base, bool fan_in_fan_out) {
  // Whole numbers are written as such: older readers declare alpha as an integer.
  Json alpha = config.alpha == std::floor(config.alpha) && std::abs(config.alpha) < 1e15
                   ? Json(static_cast<int64_t>(config.alpha))
                   : Json(config.alpha);
  // The shortest decimal that gives the float back, not the digits of its double.
  Json dropout = Json::parse(fmt::format("{}", config.dropout));
  Json out = {{"peft_type", "LORA"},
              {"task_type", "CAUSAL_LM"},
              {"base_model_name_or_path", base},
              {"revision", nullptr},
              {"inference_mode", true},
              {"r", config.r},
              {"lora_alpha", alpha},
              {"lora_dropout", dropout},
              {"target_modules", target_modules},
              {"bias", "none"},
              {"fan_in_fan_out", fan_in_fan_out},
              {"modules_to_save", nullptr},
              {"rank_pattern", Json::object()},
              {"alpha_pattern", Json::object()},
              {"init_lora_weights", true},
              {"layers_to_transform", nullptr},
              {"layers_pattern", nullptr},
              {"auto_mapping", nullptr},
              {"use_rslora", config.use_rslora}};
  return out.dump(2) + "\n";
}

}  // namespace qlora
