#include "experiments/cli/loaded_model.h"

#include <CLI/CLI.hpp>

#include "core/base/names.h"
#include "core/base/parallel.h"
#include "experiments/place.h"
#include "experiments/run_file.h"

namespace qlora {
namespace {

std::vector<std::string> known_quants() {
  std::vector<std::string> names = {"none"};
  for (Format format : kFormats)
    for (const char* scales : {"", "+dq"}) names.push_back(std::string(name_of(format)) + scales);
  return names;
}

void set(Settings& settings, const std::string& name, const std::string& text) {
  settings[name] = {parse_option(*find_option(name), text), {}};
}

// What of the base an adapter of ours was trained with: its run's file lies beside it.
void read_trained(const Path& adapter, std::initializer_list<const char*> names, Settings& settings) {
  if (adapter.empty()) return;
  std::optional<RunFile> run = read_run_file(run_folder_of(adapter));
  if (!run) return;
  for (const char* name : names) settings[name] = {run->config.at(name), {}};
}

}  // namespace

void add_model_options(CLI::App& app, ModelArguments& arguments) {
  app.add_option("--model", arguments.model, "the base model's folder")->required();
  app.add_option("--adapter", arguments.adapter, "a LoRA adapter's folder, in PEFT's layout");
  app.add_option(
      "--quant", arguments.quant,
      fmt::format("{} (default: as the adapter was trained, else none)", fmt::join(known_quants(), ", ")));
  app.add_flag("--no-cache", arguments.no_cache,
               "neither use nor keep the quantized base beside the model (also: QLORA_NO_CACHE=1)");
  app.add_option("--compute-dtype", arguments.compute_dtype,
                 "auto, f32, bf16, bf16_amx: operands of products (default: as the adapter was trained, else "
                 "auto)");
}

RunConfig base_config(const ModelArguments& arguments, const std::string& backend) {
  Settings settings;
  set(settings, "model_name_or_path", arguments.model);
  set(settings, "dataset", "-");
  set(settings, "bits", "32");
  if (arguments.quant.empty()) {
    read_trained(arguments.adapter, {"bits", "quant_type", "double_quant"}, settings);
  } else {
    const std::vector<std::string> known = known_quants();
    QLORA_CHECK(std::find(known.begin(), known.end(), arguments.quant) != known.end(), usage, "--quant: {}",
                unknown_name("quantization", arguments.quant, known));
    bool none = arguments.quant == "none";
    const std::string type = arguments.quant.substr(0, arguments.quant.find('+'));
    set(settings, "bits", none ? "32" : type == name_of(Format::int8) ? "8" : "4");
    if (!none) set(settings, "quant_type", type);
    set(settings, "double_quant", arguments.quant.ends_with("+dq") ? "true" : "false");
  }
  for (const auto& [name, asked] :
       {std::pair("decode_numerics", &arguments.decode_numerics),
        std::pair("prompt_lookup_num_tokens", &arguments.prompt_lookup_num_tokens)}) {
    if (asked->empty())
      read_trained(arguments.adapter, {name}, settings);
    else
      set(settings, name, *asked);
  }
  if (arguments.no_cache) set(settings, "base_cache", "false");
  if (arguments.compute_dtype.empty()) {
    read_trained(arguments.adapter, {"compute_dtype"}, settings);
  } else {
    YamlNode written;
    written.kind = YamlNode::Kind::scalar;
    written.text = arguments.compute_dtype;
    written.where = {"--compute-dtype", 0, 0};
    settings["compute_dtype"] = {read_option(*find_option("compute_dtype"), written), written.where};
  }
  auto type = settings.find("compute_dtype");
  if (type == settings.end() || type->second.value == OptionValue(std::string("auto")))
    set(settings, "compute_dtype", best_compute_dtype(names_gpu(backend)));
  return RunConfig(settings);
}

LoadedModel::LoadedModel(const RunConfig& config, const std::string& backend, int threads)
    : config_(config),
      type_(load_options(config_).type),
      backend_((threads > 0 ? set_thread_count(threads) : void(), make_backend(backend))),
      memory_(*backend_) {
  const std::string& folder = config_.text("model_name_or_path");
  tokenizer_ = load_tokenizer(folder);
  model_ = load_model(folder, memory_, load_options(config_));
}

LoadedModel::LoadedModel(const ModelArguments& arguments, const std::string& backend, int threads)
    : LoadedModel(base_config(arguments, backend), backend, threads) {
  if (!arguments.adapter.empty()) adapter_ = load_peft(arguments.adapter, *model_, memory_, type_);
}

}  // namespace qlora
