#include <array>
#include <utility>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/models/base_cache.h"
#include "core/models/families.h"

namespace qlora {

namespace {

struct Family {
  const char* name;
  std::vector<WeightSpec> (*weights)(const HfConfig&);
  std::shared_ptr<const Model> (*make)(HfConfig, const ModelFolder&, Memory&, const LoadOptions&);
};

constexpr std::array<Family, 11> kFamilies = {{
    {"llama", llama_weights, make_llama},
    {"mistral", llama_weights, make_llama},
    {"qwen2", llama_weights, make_llama},
    {"qwen3", llama_weights, make_llama},
    {"gemma2", gemma2_weights, make_gemma2},
    {"phi3", llama_weights, make_llama},
    {"gpt_neox", gpt_neox_weights, make_gpt_neox},
    {"opt", opt_weights, make_opt},
    {"gpt2", gpt2_weights, make_gpt2},
    {"falcon", falcon_weights, make_falcon},
    {"RefinedWebModel", falcon_weights, make_falcon},
}};

const Family& family_of(const Path& config_json) {
  const std::string type = read_model_type(config_json);
  for (const Family& family : kFamilies)
    if (type == family.name) return family;
  fail(ErrorKind::data, "{}: {}", config_json.string(), unknown_name("model_type", type, model_types()));
}

// As config.json calls the type of the stored weights; f32 where it says nothing, as transformers has it.
DType stored_type(const HfConfig& config) {
  for (auto [name, type] : {std::pair{"bfloat16", DType::bf16}, {"float16", DType::f16}})
    if (config.dtype == name) return type;
  return DType::f32;
}

}  // namespace

std::vector<std::string> model_types() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.name);
  return names;
}

ModelFolder announced_weights(const Path& config_json) {
  const HfConfig config = read_hf_config(config_json);
  std::vector<TensorInfo> tensors;
  for (WeightSpec& spec : family_of(config_json).weights(config))
    tensors.push_back({std::move(spec.name), stored_type(config), std::move(spec.shape)});
  return {config_json, tensors};
}

std::shared_ptr<const Model> load_model(const Path& path, Memory& memory, const LoadOptions& options) {
  ModelFolder folder(path);
  const Path config_json = path / "config.json";
  const Family& family = family_of(config_json);
  std::unique_ptr<BaseCache> base = BaseCache::open(folder, options);
  LoadOptions loaders = options;
  loaders.base = base.get();
  std::shared_ptr<const Model> model = family.make(read_hf_config(config_json), folder, memory, loaders);
  if (base) base->finish();
  return model;
}

std::shared_ptr<const Model> shapes_of_model(const Path& config_json, Memory& memory,
                                             const LoadOptions& options) {
  LoadOptions shapes = options;
  shapes.shapes_only = true;
  return load_weights(announced_weights(config_json), config_json, memory, shapes);
}

std::shared_ptr<const Model> load_weights(const ModelFolder& folder, const Path& config_json, Memory& memory,
                                          const LoadOptions& options) {
  return family_of(config_json).make(read_hf_config(config_json), folder, memory, options);
}

}  // namespace qlora
