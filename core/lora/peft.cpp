#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/io/safetensors.h"
#include "core/lora/build.h"
#include "core/lora/peft_config.h"

namespace qlora {
namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kTensorFile = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.";

// The list for adapter_config.json: what was asked for, or, for all-linear, the last parts of the names.
std::vector<std::string> target_modules(const Adapter& adapter, const LoraConfig& config) {
  std::set<std::string> names;
  for (const std::string& target : config.targets)
    if (target != "all-linear" && target != "all") names.insert(target);
  if (names.size() != config.targets.size() || names.empty())
    for (const auto& [linear, lora] : adapter.lora) names.insert(linear.substr(linear.rfind('.') + 1));
  return {names.begin(), names.end()};
}

struct TensorName {
  std::string linear;
  bool is_a = false;
};

// "base_model.model.LINEAR.lora_A.weight", or with the adapter's name before ".weight", as PEFT keeps it in
// memory.
TensorName parse_name(const Path& path, std::string_view name) {
  std::string_view rest = name;
  auto cut = [&](std::string_view suffix) {
    bool found = rest.ends_with(suffix);
    if (found) rest.remove_suffix(suffix.size());
    return found;
  };
  TensorName out;
  bool known = rest.starts_with(kPrefix);
  if (known) {
    rest.remove_prefix(kPrefix.size());
    known = cut(".weight");
    cut(".default");
    out.is_a = cut(".lora_A");
    known = known && (out.is_a || cut(".lora_B"));
  }
  QLORA_CHECK(known, data, "{}: tensor `{}` is not supported (only lora_A and lora_B weights are)",
              path.string(), name);
  out.linear = rest;
  return out;
}

struct Pair {
  const TensorView* a = nullptr;
  const TensorView* b = nullptr;
};

std::map<std::string, Pair> pairs_of(const SafetensorsFile& file) {
  std::map<std::string, Pair> pairs;
  for (const auto& [name, view] : file.tensors()) {
    TensorName parsed = parse_name(file.path(), name);
    Pair& pair = pairs[parsed.linear];
    (parsed.is_a ? pair.a : pair.b) = &view;
  }
  return pairs;
}

void check_tensor(const Path& path, const std::string& linear, const char* part, const TensorView* view,
                  const Shape& expected) {
  QLORA_CHECK(view != nullptr, data, "{}: no {} for `{}`", path.string(), part, linear);
  QLORA_CHECK(view->shape == expected, data, "{}: {} of `{}`: expected shape {}, found {}", path.string(),
              part, linear, to_string(expected), to_string(view->shape));
  QLORA_CHECK(is_floating(view->type), data, "{}: {} of `{}`: expected f32, f64, bf16 or f16, found {}",
              path.string(), part, linear, name_of(view->type));
}

std::vector<float> finite_floats(const Path& path, const std::string& linear, const char* part,
                                 const TensorView& view) {
  std::vector<float> values = to_floats(view);
  QLORA_CHECK(std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }), data,
              "{}: {} of `{}` holds NaN or infinity: the adapter is broken", path.string(), part, linear);
  return values;
}

// Every linear that the configuration targets must have its tensors.
void check_complete(const Path& path, const Model& model, const LoraConfig& config,
                    const std::map<std::string, Pair>& pairs) {
  for (const LinearInfo& linear : model.linears())
    for (const std::string& target : config.targets)
      QLORA_CHECK(!target_matches(target, linear.name) || pairs.count(linear.name) == 1, data,
                  "{}: no lora_A for `{}`, which `{}` in target_modules names", path.string(), linear.name,
                  target);
}

const LinearInfo& find_linear(const Path& path, const Model& model, const std::string& name) {
  std::vector<std::string> known;
  for (const LinearInfo& linear : model.linears()) {
    if (linear.name == name) return linear;
    known.push_back(linear.name);
  }
  std::string near = nearest(name, known);
  fail(ErrorKind::data, "{}: the model has no linear `{}`{}; is this adapter for another model?",
       path.string(), name, near.empty() ? "" : fmt::format(" (the nearest is `{}`)", near));
}

}  // namespace

void save_peft(const Path& folder, Adapter& adapter, const LoraConfig& config, const std::string& base) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  QLORA_CHECK(!error, failure, "cannot create {}: {}", folder.string(), error.message());
  std::vector<std::vector<float>> values;  // stay until the file is written
  std::vector<TensorOut> tensors;
  for (auto& [linear, lora] : adapter.lora)
    for (auto [part, param] : {std::pair("lora_A", &lora.a), std::pair("lora_B", &lora.b)}) {
      values.push_back(param->value.to_floats());
      tensors.push_back({.name = peft_name(linear, part),
                         .type = DType::f32,
                         .shape = param->value.shape(),
                         .bytes = std::as_bytes(std::span(values.back()))});
    }
  write_safetensors(folder / kTensorFile, tensors, {{"format", "pt"}});
  // Last, since a folder with a configuration looks complete.
  const bool fan_in_fan_out = std::any_of(adapter.lora.begin(), adapter.lora.end(),
                                          [](const auto& l) { return l.second.fan_in_fan_out; });
  write_file(folder / kConfigFile,
             peft_config_text(config, target_modules(adapter, config), base, fan_in_fan_out));
}

LoadedAdapter load_peft(const Path& folder, const Model& model, Memory& memory, DType type) {
  const Path path = folder / kTensorFile;
  QLORA_CHECK(std::filesystem::exists(folder / kConfigFile), data,
              "{}: no {}; an adapter folder has it beside {}", folder.string(), kConfigFile, kTensorFile);
  PeftConfig peft = read_peft_config(folder / kConfigFile);
  QLORA_CHECK(std::filesystem::exists(path), data, "{}: no {} (adapter_model.bin must be converted first)",
              folder.string(), kTensorFile);
  SafetensorsFile file(path);
  std::map<std::string, Pair> pairs = pairs_of(file);
  QLORA_CHECK(!pairs.empty(), data, "{}: no tensors", path.string());

  LoadedAdapter out;
  out.config = peft.lora;
  out.adapter = std::make_unique<Adapter>();
  for (const auto& [name, pair] : pairs) {
    const LinearInfo& linear = find_linear(path, model, name);
    check_tensor(path, name, "lora_A", pair.a, {peft.lora.r, linear.in});
    check_tensor(path, name, "lora_B", pair.b, {linear.out, peft.lora.r});
    out.adapter->lora.emplace(
        name, make_lora(linear, peft.lora, memory, type, finite_floats(path, name, "lora_A", *pair.a),
                        finite_floats(path, name, "lora_B", *pair.b)));
  }
  if (peft.targets_listed) {
    check_complete(path, model, peft.lora, pairs);
  } else {
    for (const auto& [name, pair] : pairs) out.config.targets.push_back(name);
  }
  return out;
}

}  // namespace qlora
