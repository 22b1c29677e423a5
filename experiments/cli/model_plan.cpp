// qlora model plan.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "core/base/check.h"
#include "experiments/cli/cli.h"
#include "experiments/model_plan.h"
#include "experiments/place.h"
#include "kernels/cuda/blas_table.h"
#include "kernels/devices.h"

namespace qlora {
namespace {

struct Arguments {
  std::string model, memory, context;
  std::vector<std::string> sets;
  int64_t tokens = 0;
};

// What a context takes on cards of several kinds, where there is none to measure.
constexpr const char* kContext = "410M";

// The GPU that the plan is for: the one that is there, unless its context's size is given.
PlannedDevice gpu_of_plan(const std::string& context, std::string& missing) {
  const GpuReport& gpus = gpu_report();
  if (gpus.usable() && context.empty()) {
    const GpuMemory gpu = measure_gpu();
    return planned_gpu("cuda", gpu.context,
                       gpu.others ? ContextFigure::with_others : ContextFigure::measured);
  }
  PlannedDevice device{CountedKernels::cuda, parse_memory(context.empty() ? kContext : context),
                       context.empty() ? ContextFigure::assumed : ContextFigure::given};
  device.blas = !cuda::blas_is_off();  // another machine's, taken to be there
  device.kept = kept_bytes_asked();
  if (context.empty()) missing = gpus.trouble;
  return device;
}

// The type that `auto` would stand for on this machine says nothing about a GPU.
std::vector<std::string> with_type(std::vector<std::string> sets, bool gpu) {
  if (gpu) sets.insert(sets.begin(), "compute_dtype=bf16");
  return sets;
}

int plan(const CLI::App& app, const Arguments& arguments, const Invocation& in) {
  const bool gpu = in.backend.starts_with("cuda");
  if (!gpu) backend_named(in.backend);  // is there such a one?
  ModelPlanSetup setup;
  setup.model = arguments.model;
  setup.config = model_plan_config(setup.model, with_type(assignments(app, arguments.sets), gpu));
  setup.tokens = arguments.tokens > 0
                     ? arguments.tokens
                     : setup.config.integer("source_max_len") + setup.config.integer("target_max_len");
  std::string missing;
  if (gpu) setup.device = gpu_of_plan(arguments.context, missing);
  if (!arguments.memory.empty()) setup.usable = parse_memory(arguments.memory);
  const ModelPlan plan = plan_model(setup);
  fmt::print("{}", in.json ? to_json_text(plan) + "\n" : describe(plan));
  if (!in.json && !missing.empty()) fmt::print("no GPU to measure: {}\n", missing);
  return plan.fits() ? 0 : static_cast<int>(ErrorKind::memory);
}

}  // namespace

void add_model_plan(CLI::App& model, Invocation& in) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* app = model.add_subcommand("plan", "the memory that training on a model takes, weights or not");
  app->add_option("model", arguments->model, "a model folder, or a config.json alone")->required();
  app->add_option("--tokens", arguments->tokens,
                  "of every example, all learned (default: source_max_len + target_max_len)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
  app->add_option(
      "--memory", arguments->memory,
      "what it should fit into: 5.7G; exit code 4 where it does not, or its GPU's host has no room");
  app->add_option(
      "--context", arguments->context,
      "what the driver of a GPU takes for a program (default: measured where there is a GPU, else 410M)");
  app->add_option("--set", arguments->sets, "key=value: an option of a run; may be repeated");
  add_json_flag(*app, in);
  add_compute_options(*app, in);
  app->allow_extras();
  app->footer(
      "Every option of a run may be given as --key value. --backend cuda plans for a GPU, there or not.\n"
      "Examples:\n  qlora model plan llama-7b/config.json --backend cuda --tokens 512 --optim "
      "paged_adamw_32bit\n"
      "  qlora model plan models/smollm2 --lora_r 16 --memory 2G");
  app->callback([=, &in] { in.work = [=, &in] { return plan(*app, *arguments, in); }; });
}

}  // namespace qlora
