#include <array>
#include <utility>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/models/base_cache.h"
#include "core/models/families.h"

namespace qlora {

namespace {

using Maker = std::shared_ptr<const Model> (*)(HfConfig, const ModelFolder&, Memory&, const LoadOptions&);

constexpr std::array<std::pair<const char*, Maker>, 3> kModels = {{
    {"llama", make_llama},
    {"mistral", make_llama},
    {"qwen2", make_llama},
}};

}  // namespace

std::vector<std::string> model_types() {
  std::vector<std::string> names;
  for (const auto& [name, maker] : kModels) names.emplace_back(name);
  return names;
}

std::shared_ptr<const Model> load_model(const Path& path, Memory& memory, const LoadOptions& options) {
  ModelFolder folder(path);
  std::string type = read_model_type(path / "config.json");
  for (const auto& [name, maker] : kModels) {
    if (type != name) continue;
    HfConfig config = read_hf_config(path / "config.json");
    std::unique_ptr<BaseCache> base = BaseCache::open(folder, options);
    LoadOptions loaders = options;
    loaders.base = base.get();
    std::shared_ptr<const Model> model = maker(std::move(config), folder, memory, loaders);
    if (base) base->finish();
    return model;
  }
  fail(ErrorKind::data, "{}: {}", (path / "config.json").string(),
       unknown_name("model_type", type, model_types()));
}

}  // namespace qlora
