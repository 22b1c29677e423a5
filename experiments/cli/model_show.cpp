// qlora model show.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/models/base_cache.h"
#include "experiments/cli/cli.h"
#include "experiments/plan.h"

namespace qlora {
namespace {

// What the weights' files hold.
struct Weights {
  int64_t elements = 0;
  size_t bytes = 0;
  std::map<std::string, int64_t> tensors;  // by type
};

Weights weights_of(const ModelFolder& folder) {
  Weights w;
  for (const std::string& name : folder.names()) {
    const TensorView& view = *folder.find(name);
    w.elements += view.size();
    w.bytes += view.bytes.size();
    ++w.tensors[name_of(view.type)];
  }
  return w;
}

std::string text_of(const Path& model, const HfConfig& config, const Weights& weights,
                    const std::vector<BaseFile>& bases) {
  std::string types;
  for (const auto& [type, count] : weights.tensors)
    types += fmt::format("{}{} of {}", types.empty() ? "" : ", ", count, type);
  std::string out = fmt::format(
      "model       {}\nfamily      {}: {} layers, {} wide, {} heads ({} of keys), vocabulary {}, context "
      "{}{}\n"
      "weights     {:.1f} million in {} ({} tensors)\n",
      model.string(), config.model_type, config.layers, config.hidden_size, config.heads, config.kv_heads,
      config.vocab_size, config.max_positions, config.tied_head ? ", tied head" : "",
      static_cast<double>(weights.elements) / 1e6, format_bytes(weights.bytes), types);
  if (bases.empty())
    return out + "base kept   none; the first start that quantizes writes one (base_cache, --no-cache)\n";
  for (const BaseFile& base : bases)
    out += fmt::format("base kept   {}, {}: {}\n", base.path.string(), format_bytes(base.bytes),
                       base.trouble.empty() ? "mapped by the next start" : "made anew: " + base.trouble);
  return out;
}

Json json_of(const Path& model, const HfConfig& config, const Weights& weights,
             const std::vector<BaseFile>& bases) {
  Json kept = Json::array();
  for (const BaseFile& base : bases)
    kept.push_back({{"file", base.path.string()},
                    {"bytes", base.bytes},
                    {"used", base.trouble.empty()},
                    {"trouble", base.trouble}});
  return {{"model", model.string()},
          {"model_type", config.model_type},
          {"layers", config.layers},
          {"hidden_size", config.hidden_size},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"vocab_size", config.vocab_size},
          {"max_positions", config.max_positions},
          {"tied_head", config.tied_head},
          {"elements", weights.elements},
          {"bytes", weights.bytes},
          {"tensors", weights.tensors},
          {"base_cache", kept}};
}

}  // namespace

void add_model_show(CLI::App& model, Invocation& in) {
  struct Arguments {
    std::string folder;
    bool check = false;
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* show =
      model.add_subcommand("show", "what a model folder holds, and the quantized bases kept beside it");
  show->add_option("model", arguments->folder, "the folder")->required();
  show->add_flag("--check", arguments->check, "read every byte of the kept bases");
  add_json_flag(*show, in);
  show->footer("Examples:\n  qlora model show DIR\n  qlora model show DIR --check --json");
  show->callback([=, &in] {
    in.work = [=, &in] {
      const Path path = arguments->folder;
      const ModelFolder folder(path);
      const HfConfig config = read_hf_config(path / "config.json");
      const Weights weights = weights_of(folder);
      const std::vector<BaseFile> bases = base_files(folder, arguments->check);
      if (in.json) {
        fmt::print("{}\n", json_of(path, config, weights, bases).dump(1));
      } else {
        fmt::print("{}", text_of(path, config, weights, bases));
      }
      return 0;
    };
  });
}

}  // namespace qlora
