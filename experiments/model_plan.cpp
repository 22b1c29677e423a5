#include "experiments/model_plan.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/lora/lora.h"
#include "experiments/place.h"

namespace qlora {
namespace {

// What the planner takes: a folder with weights, or config.json.
Path planned_path(const Path& model) {
  if (!std::filesystem::is_directory(model)) return model;
  const bool weights = std::filesystem::exists(model / "model.safetensors") ||
                       std::filesystem::exists(model / "model.safetensors.index.json");
  return weights ? model : model / "config.json";
}

PlannedRun run_of(const ModelPlanSetup& setup, const Path& path) {
  PlannedRun run;
  run.name = "plan";
  run.config = setup.config.with("model_name_or_path", path.string());
  run.longest.assign(static_cast<size_t>(run.config.integer("per_device_train_batch_size")), setup.tokens);
  return run;
}

std::string megabytes(size_t bytes) {
  return fmt::format("{:>10.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string line(const char* what, size_t bytes, const std::string& note = "") {
  return fmt::format("  {:<22}{}{}\n", what, megabytes(bytes), note.empty() ? "" : "   " + note);
}

std::string millions(int64_t n) {
  return fmt::format("{:.1f} million", static_cast<double>(n) / 1e6);
}

std::string states_text(const ModelPlan& plan) {
  if (plan.memory.paged > 0) return "its states are in host memory";
  return plan.setup.config.text("optim") == "adamw_8bit" ? "m and v, 8 bits and a scale for 256 of them"
                                                         : "m and v, f32";
}

bool is_gpu(const ModelPlan& plan) {
  return plan.memory.device.kernels == CountedKernels::cuda;
}

const char* offload_text(const ModelPlan& plan) {
  if (plan.memory.offloaded > 0) return ": inputs of blocks are in host memory, but two";
  const bool asked = plan.setup.config.text("gradient_checkpointing") == name_of(Checkpointing::offload);
  return asked ? " (offload is that on the processor)" : "";
}

std::string kernels_text(const ModelPlan& plan) {
  return is_gpu(plan) ? "products of many rows " + describe_products(plan.memory) : "";
}

std::string host_text(const PlannedDevice& device) {
  return device.host_known() ? fmt::format(", where {} are there", format_bytes(device.host)) : "";
}

std::string base_text(const RunConfig& config) {
  if (config.integer("bits") == 32) return "not quantized";
  return config.text("quant_type") + (config.flag("double_quant") ? ", double quantization" : "");
}

// What lies where it computes.
std::string describe_parts(const ModelPlan& plan) {
  const MemoryPlan& m = plan.memory;
  const RunConfig& config = plan.setup.config;
  const std::string dense = is_bf16(load_options(config).operands) ? "tables bf16, norms f32" : "f32";
  std::string out;
  if (m.parts.quantized > 0)
    out += line("base, quantized", m.parts.quantized, millions(plan.frozen) + ", " + base_text(config));
  out += line("base, dense", m.parts.dense, dense);
  out += line("adapter", m.parts.adapters, "f32, " + millions(plan.trained));
  out += line("gradients", m.parts.gradients, "f32");
  out += line("optimizer", m.parts.optimizer, states_text(plan));
  out +=
      line("activations", m.parts.activations,
           fmt::format("f32, gradient_checkpointing {}{}", name_of(plan.checkpointing), offload_text(plan)));
  out += line(
      "buffers of ops", m.parts.buffers,
      fmt::format("at that moment; a chunk of logits takes {} at another", format_bytes(m.parts.logits)));
  out += line("gaps", m.gaps(), "alignment, and what nothing fits into");
  out += line("kernels' own", m.scratch, kernels_text(plan));
  if (m.slabs > 0) out += line("slabs", m.slabs, "of paged states, on their way");
  return out;
}

Json json_of(const MemoryPlan& m) {
  return {{"base_quantized", m.parts.quantized},
          {"base_dense", m.parts.dense},
          {"adapter", m.parts.adapters},
          {"gradients", m.parts.gradients},
          {"optimizer", m.parts.optimizer},
          {"activations", m.parts.activations},
          {"buffers", m.parts.buffers},
          {"logits_chunk", m.parts.logits},
          {"gaps", m.gaps()},
          {"kernels", m.scratch},
          {"kept_decoded", m.options.kept_bytes},
          {"slabs", m.slabs},
          {"context", m.device.context},
          {"context_is", describe_context(m.device)},
          {"total", m.bytes()},
          {"paged", m.paged},
          {"offloaded", m.offloaded},
          {"loading", m.loading}};
}

}  // namespace

RunConfig model_plan_config(const Path& model, const std::vector<std::string>& assignments) {
  Settings settings;
  for (const auto& [name, text] :
       {std::pair<const char*, std::string>{"model_name_or_path", model.string()}, {"dataset", "-"}})
    settings[name] = {parse_option(*find_option(name), text), {}};
  for (const std::string& assignment : assignments) {
    YamlNode map;
    map.kind = YamlNode::Kind::map;
    map.entries = {parse_assignment(assignment)};
    read_settings(map, settings);
  }
  return RunConfig(settings);
}

ModelPlan plan_model(const ModelPlanSetup& setup) {
  ModelPlan plan;
  plan.setup = setup;
  const Path path = planned_path(setup.model);
  QLORA_CHECK(std::filesystem::exists(path), data,
              "{} does not exist: give a model folder, or the config.json of a model", path.string());
  plan.weights = std::filesystem::is_directory(path);
  const PlannedRun run = run_of(setup, path);
  Planner planner(setup.device);
  const Model& model = planner.model_of(run.config);
  plan.shape = model.config();
  QLORA_CHECK(setup.tokens >= 1 && setup.tokens <= plan.shape.max_positions, usage,
              "examples of {} tokens: this model takes 1 to {} (max_position_embeddings)", setup.tokens,
              plan.shape.max_positions);
  for (const LinearInfo& linear : model.linears()) plan.frozen += linear.out * linear.in;
  const LoraConfig lora = lora_config(run.config);
  for (const LinearInfo& linear : match_targets(model, lora.targets))
    plan.trained += lora.r * (linear.out + linear.in);

  const PlannedPack pack = planner.choose({&run}, setup.usable);
  plan.checkpointing = pack.checkpointing;
  plan.memory = pack.memory;
  return plan;
}

std::string describe(const ModelPlan& plan) {
  const RunConfig& config = plan.setup.config;
  const MemoryPlan& m = plan.memory;
  const HfConfig& shape = plan.shape;
  std::string out = fmt::format(
      "{}: {}, {} layers, {} wide{}\nrank {} on {}, {} example{} of {} tokens, {}\n"
      "planned, not measured, {}:\n",
      plan.setup.model.string(), shape.model_type, shape.layers, shape.hidden_size,
      plan.weights ? "" : "; from config.json, without weights", config.integer("lora_r"),
      fmt::join(config.list("lora_target_modules"), ", "), config.integer("per_device_train_batch_size"),
      config.integer("per_device_train_batch_size") == 1 ? "" : "s", plan.setup.tokens, config.text("optim"),
      is_gpu(plan) ? "on the GPU" : "in memory");
  out += describe_parts(plan);
  if (is_gpu(plan)) {
    out += line("CUDA context", m.device.context, describe_context(m.device));
    out += line("in all", m.bytes(), "in pieces of 2 MiB");
    if (m.pinned() > 0) out += fmt::format("in host memory, pinned{}:\n", host_text(m.device));
    if (m.paged > 0) out += line("optimizer", m.paged, "m and v, f32");
    if (m.offloaded > 0) out += line("inputs of blocks", m.offloaded, "f32, from forward to backward");
  } else {
    if (m.paged > 0) out += line("paged states", m.paged, "m and v, f32");
    out += line("program", m.process, "without tokenizer and examples");
    out += line("in all", m.bytes(), "or while loading, where that is more");
  }
  if (plan.setup.usable)
    out += fmt::format("{} {}\n", plan.fits_usable() ? "fits into" : "does not fit into",
                       format_bytes(*plan.setup.usable));
  if (!m.host_has_room())
    out += fmt::format("does not fit into the host's memory: {} pinned, {} are there\n",
                       format_bytes(m.pinned()), format_bytes(m.device.host));
  return out;
}

std::string to_json_text(const ModelPlan& plan) {
  Json json = {{"model", plan.setup.model.string()},
               {"weights", plan.weights},
               {"gpu", is_gpu(plan)},
               {"tokens", plan.setup.tokens},
               {"frozen", plan.frozen},
               {"trained", plan.trained},
               {"gradient_checkpointing", name_of(plan.checkpointing)},
               {"optim", plan.setup.config.text("optim")},
               {"products", is_gpu(plan) ? describe_products(plan.memory) : ""},
               {"cublas", is_gpu(plan) && plan.memory.options.blas},
               {"bytes", json_of(plan.memory)}};
  if (plan.setup.usable) json["usable"] = *plan.setup.usable;
  if (plan.memory.device.host_known()) json["host"] = plan.memory.device.host;
  if (plan.setup.usable || !plan.fits()) json["fits"] = plan.fits();
  return json.dump(1);
}

}  // namespace qlora
