#include "experiments/model_plan.h"

#include <catch2/catch.hpp>

#include "core/models/tiny_model.h"
#include "core/train/pack.h"
#include "experiments/place.h"
#include "experiments/start_run.h"
#include "experiments/test_program.h"
#include "kernels/cuda/emulated/grid.h"
#include "kernels/cuda/many_rows.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

ModelPlan plan_of(const Path& model, std::vector<std::string> options, CountedKernels kernels,
                  int64_t tokens = 24) {
  return plan_model({.model = model,
                     .config = model_plan_config(model, options),
                     .tokens = tokens,
                     .device = {kernels, kernels == CountedKernels::cuda ? size_t{1} << 20 : 0}});
}

// All but what this process has.
std::vector<size_t> sizes(const MemoryPlan& m) {
  return {m.loading,         m.lasting,         m.passing,           m.scratch,       m.paged,
          m.slabs,           m.offloaded,       m.parts.quantized,   m.parts.dense,   m.parts.adapters,
          m.parts.gradients, m.parts.optimizer, m.parts.activations, m.parts.buffers, m.parts.logits,
          m.gaps()};
}

}  // namespace

TEST_CASE("a plan from config.json alone is the plan of the model with its weights, byte for byte") {
  const TinyConfig configs[] = {{},
                                {.model_type = "mistral", .layers = 3, .window = 7},
                                {.model_type = "qwen2", .tied = true},
                                {.model_type = "qwen3"},
                                tiny_layer_norm_models()[1]};  // opt
  for (const TinyConfig& config : configs) {
    TemporaryFolder whole, alone;
    write_tiny_model(whole.path(), config);
    write_file(alone.path() / "config.json", tiny_config_json(config));
    for (CountedKernels kernels : {CountedKernels::cpu, CountedKernels::cuda})
      for (const std::vector<std::string>& options : std::vector<std::vector<std::string>>{
               {"compute_dtype=f32", "lora_r=3"},
               {"compute_dtype=bf16", "lora_dropout=0.1", "gradient_checkpointing=selective"},
               {"compute_dtype=bf16", "bits=32", "lora_target_modules=q_proj"},
               {"compute_dtype=f32", "optim=adamw_8bit", "lora_r=256"},
               {"compute_dtype=f32", "optim=paged_adamw_32bit", "per_device_train_batch_size=2"},
               {"compute_dtype=f32", "gradient_checkpointing=offload"}}) {
        const ModelPlan with = plan_of(whole.path(), options, kernels);
        const ModelPlan folder = plan_of(alone.path(), options, kernels),
                        file = plan_of(alone.path() / "config.json", options, kernels);
        INFO(config.model_type << " " << options[0] << " " << options[1]);
        CHECK((with.weights && !folder.weights && !file.weights));
        CHECK(sizes(folder.memory) == sizes(with.memory));
        CHECK(sizes(file.memory) == sizes(with.memory));
        CHECK(file.trained == with.trained);
        const bool paged = options[1] == "optim=paged_adamw_32bit";
        CHECK(with.memory.paged == (paged ? 2 * sizeof(float) * static_cast<size_t>(with.trained) : 0));
        CHECK((with.memory.slabs > 0) == (paged && kernels == CountedKernels::cuda));
        const bool offloads = options[1].ends_with("offload") && kernels == CountedKernels::cuda;
        const auto inputs = static_cast<size_t>(config.layers * 24 * config.hidden) * sizeof(float);
        CHECK(with.memory.offloaded == (offloads ? inputs : 0));
        CHECK(with.memory.parts.adapters == sizeof(float) * static_cast<size_t>(with.trained));
      }
  }
}

namespace {

// A step of the plan's run on the emulated GPU: what its memory has held, and the adapter after it.
struct Taken {
  size_t bytes = 0;
  std::vector<std::vector<double>> adapter = {};
};

Taken train_as_planned(const ModelPlan& plan, int64_t tokens) {
  const RunConfig config = plan.setup.config.with("gradient_accumulation_steps", int64_t{1});
  const size_t before = emulated::device_bytes();
  auto backend = make_backend("cuda-emulated", plan.memory.options);
  Memory memory(*backend);
  memory.reserve(plan.memory.passing);
  memory.reserve_lasting(plan.memory.lasting);
  memory.reserve_host(plan.memory.offloaded);
  LoadOptions options = load_options(config);
  options.cache = false;
  const std::shared_ptr<const Model> model = load_model(plan.setup.model, memory, options);
  TrainPack pack(model, memory, {.type = options.type, .checkpointing = plan.checkpointing});
  auto examples = std::make_shared<std::vector<TokenExample>>(4);
  for (TokenExample& example : *examples) {
    example.ids.assign(static_cast<size_t>(tokens), 7);
    example.labels.assign(static_cast<size_t>(tokens), 7);
  }
  pack.add(start_run(config, "run", examples, *model, memory, options.type));
  struct : Observer {
    void on_step(const std::string&, const StepRecord&) override {}
  } silent;
  for (int i = 0; i < 2; ++i) pack.micro_step(silent);
  backend->synchronize();
  CHECK(memory.held_peak() == plan.memory.lasting + plan.memory.passing);
  CHECK(memory.host_used() == plan.memory.paged);
  CHECK(memory.host_held_passing() == plan.memory.offloaded);
  CHECK((plan.memory.offloaded > 0) == (plan.checkpointing == Checkpointing::offload));
  Taken taken{emulated::device_bytes() - before + plan.memory.device.context};
  for (Param* p : pack.runs().at(0)->adapter().params()) taken.adapter.push_back(p->value.to_doubles());
  return taken;
}

}  // namespace

TEST_CASE("a step on a GPU takes what was planned for it, and the optimizer's states may be in host memory") {
  const TinyConfig tiny{.vocab = 128, .hidden = 64, .intermediate = 96, .layers = 2, .head_dim = 64};
  TemporaryFolder folder;
  write_tiny_model(folder.path(), tiny);
  constexpr int64_t kTokens = 17;
  // Examples one by one, and four at a time, whose rows are many enough for cuBLAS: with room for a block's
  // decoded weights, with none (the plan of all that and a byte less), and with too little for cuBLAS.
  struct Choice {
    std::string optim;
    int64_t at_once;
    std::optional<size_t> usable;
    bool blas, keeps;
    std::string mode = "block";
  };
  const auto plan_for = [&](const Choice& c) {
    ModelPlanSetup setup;
    setup.model = folder.path();
    setup.tokens = kTokens;
    setup.usable = c.usable;
    setup.config = model_plan_config(
        setup.model,
        {"compute_dtype=bf16", "lora_r=16", "optim=" + c.optim, "lora_dropout=0.1",
         fmt::format("per_device_train_batch_size={}", c.at_once), "gradient_checkpointing=" + c.mode});
    setup.device = {CountedKernels::cuda, size_t{1} << 20};
    return plan_model(setup);
  };
  const size_t all = plan_for({"adamw_torch", 4, size_t{1} << 30, true, true}).memory.bytes();
  std::vector<std::vector<double>> adapter;
  size_t kept_planned = 0, kept_taken = 0;
  for (const Choice& c :
       std::vector<Choice>{{"adamw_torch", 1, {}, true, false},
                           {"paged_adamw_32bit", 1, {}, true, false, "offload"},
                           {"adamw_8bit", 1, {}, true, false},
                           {"adamw_torch", 4, all, true, true},
                           {"adamw_torch", 4, all - 1, true, false},
                           {"adamw_torch", 4, all - cuda::kBlasWorkspace / 2, false, false}}) {
    const ModelPlan plan = plan_for(c);
    const size_t planned = plan.memory.bytes();
    INFO(c.optim << ", " << c.at_once << " at once, planned " << planned << ": "
                 << describe_products(plan.memory));
    CHECK((plan.fits() && plan.memory.options.blas == c.blas));
    CHECK((plan.memory.options.kept_bytes > 0) == c.keeps);
    const Taken taken = train_as_planned(plan, kTokens);
    INFO("taken " << taken.bytes);
    CHECK(taken.bytes <= planned);
    // cuBLAS's workspace, larger than all else here, would hide what is missing.
    const size_t workspace = c.at_once > 1 && c.blas ? cuda::kBlasWorkspace : 0;
    CHECK(static_cast<double>(taken.bytes - workspace) > 0.97 * static_cast<double>(planned - workspace));
    // What a block's decoded weights add, small beside the arenas: planned to the byte.
    if (c.keeps) kept_planned = planned, kept_taken = taken.bytes;
    if (c.usable && c.blas && !c.keeps) CHECK(kept_taken - taken.bytes == kept_planned - planned);
    // On the emulation a choice changes no bit.
    if (c.at_once == 1) continue;
    if (adapter.empty()) adapter = taken.adapter;
    CHECK(taken.adapter == adapter);
  }
}

TEST_CASE("a plan for a GPU without cuBLAS has none of its memory, and keeps as much as it is told to") {
  TemporaryFolder folder;
  write_file(folder.path() / "config.json", tiny_config_json({}));
  const auto plan = [&](const PlannedDevice& device) {
    ModelPlanSetup setup;
    setup.model = folder.path();
    setup.tokens = 100;
    setup.device = device;
    setup.usable = size_t{1} << 30;
    setup.config = model_plan_config(setup.model, {"compute_dtype=bf16"});
    return plan_model(setup).memory;
  };
  PlannedDevice device{CountedKernels::cuda};
  const MemoryPlan with = plan(device);
  device.kept = size_t{3} << 20;
  const MemoryPlan told = plan(device);
  CHECK(told.options.kept_bytes == size_t{3} << 20);
  CHECK(told.bytes() > with.bytes());
  device.blas = false;
  const MemoryPlan without = plan(device);
  CHECK((!without.options.blas && without.options.kept_bytes == 0));
  CHECK(without.scratch + cuda::kBlasWorkspace < with.scratch);
  CHECK(describe_products(without) == "by our own tiles, slower: without cuBLAS");
}

TEST_CASE("a plan does not fit where the host has no room for what is pinned, and says so") {
  TemporaryFolder folder;
  write_file(folder.path() / "config.json", tiny_config_json({}));
  const auto plan = [&](size_t host, std::optional<size_t> usable) {
    ModelPlanSetup setup;
    setup.model = folder.path();
    setup.tokens = 100;
    setup.device = {.kernels = CountedKernels::cuda, .host = host};
    setup.usable = usable;
    setup.config = model_plan_config(setup.model, {"compute_dtype=bf16", "optim=paged_adamw_32bit"});
    return plan_model(setup);
  };
  const std::optional<size_t> enough = size_t{1} << 30;
  const size_t pinned = plan(SIZE_MAX, enough).memory.pinned();
  const ModelPlan fits = plan(pinned, enough);
  CHECK(fits.fits());
  CHECK_THAT(describe(fits),
             Contains("pinned, where ") && Contains("fits into 1024 MiB\n") && !Contains("does not"));
  for (const std::optional<size_t>& usable : {enough, std::optional<size_t>()}) {
    const ModelPlan refused = plan(pinned - 1, usable);
    CHECK_FALSE(refused.fits());
    CHECK_THAT(describe(refused), Contains("does not fit into the host's memory: ") &&
                                      Contains("through cuBLAS") && !Contains("what cuBLAS needs"));
    const Json json = parse_json(to_json_text(refused), "json");
    CHECK((json["fits"] == false && json["host"] == pinned - 1));
  }
  CHECK_FALSE(parse_json(to_json_text(plan(SIZE_MAX, enough)), "json").contains("host"));
}

TEST_CASE("qlora model plan says what a model takes, and by its exit code whether it fits") {
  TemporaryFolder folder;
  write_file(folder.path() / "config.json", tiny_config_json({.layers = 3}));
  auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"model", "plan", "config.json", "--tokens", "30"});
    return Program(folder.path(), more).wait();
  };
  ProgramEnd end = run(
      {"--backend", "cuda", "--optim", "paged_adamw_32bit", "--lora-r=8", "--activation_offloading", "true"});
  CHECK(end.code == 0);
  CHECK_THAT(end.out, Contains("llama, 3 layers, 24 wide; from config.json, without weights") &&
                          Contains("planned, not measured, on the GPU") && Contains("rank 8 on all-linear") &&
                          Contains("slabs") && Contains("410.0 MiB   assumed; --context") &&
                          Contains("in host memory, pinned") && Contains("  inputs of blocks  ") &&
                          Contains("gradient_checkpointing offload: inputs of blocks are in host memory"));
  end = run({"--gradient_checkpointing", "offload", "--backend", "reference"});
  CHECK_THAT(end.out, Contains("gradient_checkpointing block (offload is that on the processor)"));
  end = run({"--memory", "8G", "--json", "--gradient_checkpointing", "auto"});
  CHECK(end.code == 0);
  Json json = parse_json(end.out, "stdout");
  CHECK((json["fits"] == true && json["gradient_checkpointing"] == "none" && json["gpu"] == false));
  end = run({"--memory", "1M"});
  CHECK(end.code == 4);
  CHECK_THAT(end.out, Contains("does not fit into 1 MiB"));

  CHECK(run({"--lora_q", "8"}).code == 2);
  CHECK(run({"--tokens", "300"}).code == 2);  // more than the model takes
  CHECK(run({"--backend", "gpu"}).code == 2);
  end = Program(folder.path(), {"model", "plan", "no/config.json"}).wait();
  CHECK(end.code == 3);
  CHECK_THAT(end.err, Contains("no/config.json does not exist"));
  write_file(folder.path() / "config.json", tiny_config_json({.model_type = "gpt9"}));
  CHECK(run({}).code == 3);
}
