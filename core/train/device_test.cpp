// The laws of training and generation on the device that QLORA_CASES_BACKEND names (cuda, or the emulation by
// default): what scripts/gpu_check.sh runs where there is a GPU. Its kernels give the same bits whatever
// shares a batch, but products of a library need not, so a device has bounds where the emulation has bits.
// With QLORA_EMULATED_BLAS=by_rows the emulation's library sums in orders that depend on the rows, and has
// the bounds.

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>

#include "core/models/generate.h"
#include "core/train/test_runs.h"
#include "kernels/devices.h"

using namespace qlora;
using namespace qlora::test;

namespace {

// Of losses of one run in two ways: the largest mean and worst difference, as parts of the loss.
constexpr double kMean = 0.0015, kWorst = 0.006;

std::string device_name() {
  const char* chosen = std::getenv("QLORA_CASES_BACKEND");
  return chosen == nullptr ? "cuda-emulated" : chosen;
}
bool on_processor() {
  return device_name() == "cuda-emulated";
}

bool has_bits() {
  const char* order = std::getenv("QLORA_EMULATED_BLAS");
  return on_processor() && (order == nullptr || std::string(order) != "by_rows");
}

// A model whose heads the tensor cores take, with bf16 operands.
struct DeviceLab {
  std::unique_ptr<Backend> backend = make_backend(device_name());
  Memory memory{*backend};
  std::shared_ptr<const Model> model =
      load_tiny_model(memory,
                      {.vocab = 300,
                       .hidden = 128,
                       .intermediate = on_processor() ? 64 : 192,
                       .layers = on_processor() ? 1 : 2,
                       .heads = 2,
                       .kv_heads = 1,
                       .head_dim = 64},
                      {.quant = {.format = Format::nf4, .double_quant = true}, .operands = Operands::bf16});

  std::vector<RunPlan> plans() const {
    std::vector<RunPlan> all = four_plans(model->config().vocab_size);
    for (RunPlan& plan : all) plan.train.max_steps = on_processor() ? 2 : 20;
    return all;
  }
  // For bounds on the emulation: as many losses as on a device, of two runs that together have rows enough
  // for the library.
  std::vector<RunPlan> plans_for_bounds() const {
    if (!on_processor() || has_bits()) return plans();
    std::vector<RunPlan> two = {plans()[0], plans()[2]};
    for (RunPlan& plan : two) {
      plan.train.max_steps = 20;
      plan.train.micro_batch = 4;
      plan.train.accumulation = 1;
    }
    return two;
  }
  std::map<std::string, Outcome> train(const std::vector<RunPlan>& plans,
                                       Checkpointing checkpointing = Checkpointing::selective) {
    TrainPack pack(model, memory, {.checkpointing = checkpointing});
    for (const RunPlan& plan : plans) pack.add(make_run(plan, *model, memory, DType::f32));
    Recorder recorder;
    while (pack.active()) pack.micro_step(recorder);
    std::map<std::string, Outcome> out;
    for (auto& run : pack.runs()) out[run->id()] = outcome_of(*run, recorder);
    return out;
  }
};

// The same bits, or on a device losses within the bounds; returns and says which.
bool check_same(const std::string& what, const Outcome& one, const Outcome& other) {
  INFO(what);
  REQUIRE(one.losses.size() == other.losses.size());
  REQUIRE(!one.losses.empty());
  double mean = 0, worst = 0;
  for (size_t i = 0; i < one.losses.size(); ++i) {
    const double part = (other.losses[i] - one.losses[i]) / one.losses[i];
    mean += part / static_cast<double>(one.losses.size());
    worst = std::max(worst, std::abs(part));
  }
  const bool bits = one == other;
  std::printf("%-40s %s, losses differ by %.2e at most, %.1e in the mean\n", what.c_str(),
              bits ? "the same bits" : "other bits", worst, mean);
  if (has_bits()) CHECK(bits);
  CHECK(std::abs(mean) <= kMean);
  CHECK(worst <= kWorst);
  return bits;
}

}  // namespace

TEST_CASE("Laws on a device: a run packed with others learns what it learns alone", "[.device]") {
  DeviceLab lab;
  const std::vector<RunPlan> plans = lab.plans_for_bounds();
  const std::map<std::string, Outcome> packed = lab.train(plans);
  bool bits = true;
  for (const RunPlan& plan : plans)
    bits &= check_same("packed = alone, run " + plan.id, lab.train({plan}).at(plan.id), packed.at(plan.id));
  if (on_processor()) CHECK(bits == has_bits());  // or the other orders were not met
}

TEST_CASE("Laws on a device: a batch cut into micro-batches learns the same", "[.device]") {
  DeviceLab lab;
  RunPlan plan = lab.plans()[0];
  plan.train.micro_batch = 4;
  plan.train.accumulation = 1;
  const Outcome whole = lab.train({plan}).at(plan.id);
  plan.train.micro_batch = 1;
  plan.train.accumulation = 4;
  check_same("4 x 1 = 1 x 4", whole, lab.train({plan}).at(plan.id));
}

TEST_CASE("Laws on a device: run to run, the same bits", "[.device]") {
  DeviceLab lab;
  const std::map<std::string, Outcome> first = lab.train(lab.plans());
  CHECK(lab.train(lab.plans()) == first);
}

TEST_CASE("Laws on a device: inputs of blocks that go to the host and come back change no bit", "[.device]") {
  DeviceLab lab;
  const std::vector<RunPlan> two = {lab.plans()[0], lab.plans()[2]};
  CHECK(lab.train(two, Checkpointing::offload) == lab.train(two, Checkpointing::block));
}

TEST_CASE("Laws on a device: an answer does not depend on what is answered beside it", "[.device]") {
  DeviceLab lab;
  std::vector<Prompt> prompts;
  for (int32_t i = 0; i < 5; ++i) {
    Prompt prompt;
    for (int32_t t = 0; t < 3 + 7 * i; ++t) prompt.tokens.push_back((31 * i + 17 * t) % 300);
    prompts.push_back(prompt);
  }
  for (Numerics numerics : {Numerics::exact, Numerics::decode}) {
    const GenerateOptions options{.max_new_tokens = on_processor() ? 4 : 32, .numerics = numerics};
    const auto together = generate(*lab.model, lab.memory, DType::f32, prompts, options);
    for (size_t i = 0; i < prompts.size(); ++i)
      CHECK(generate(*lab.model, lab.memory, DType::f32, {&prompts[i], 1}, options).at(0) == together[i]);
  }
}

namespace {

uint64_t graphs_so_far() {
  return device_use(device_name()).graphs;
}

// Steps of 3 x 24 tokens, enough rows for the library, all of one shape.
RunPlan plan_of_one_shape(int64_t vocab) {
  RunPlan plan = four_plans(vocab)[2];
  for (TokenExample& example : plan.examples) {
    example.ids.resize(24, 5);
    example.labels.resize(24, 7);
    std::fill(example.labels.begin() + 8, example.labels.end(), 9);  // as many labels everywhere
    std::fill(example.labels.begin(), example.labels.begin() + 8, -100);
  }
  plan.train.max_steps = 6;
  return plan;
}

// Steps of one example each, no two of one length.
RunPlan plan_of_many_shapes(int64_t vocab) {
  RunPlan plan = four_plans(vocab)[0];
  size_t length = 5;
  for (TokenExample& example : plan.examples) {
    example.ids.resize(length, 5);
    example.labels.resize(length++, 7);
  }
  plan.train.accumulation = 1;
  plan.train.max_steps = static_cast<int64_t>(plan.examples.size());
  return plan;
}

}  // namespace

TEST_CASE("Laws on a device: graphs, of token steps and of steps of one shape, change no bit") {
  std::map<std::string, std::pair<Outcome, std::vector<std::vector<int32_t>>>> all;
  for (const std::string graphs : {"off", "on"}) {
    ::setenv("QLORA_CUDA_GRAPHS", graphs.c_str(), 1);
    DeviceLab lab;
    ::unsetenv("QLORA_CUDA_GRAPHS");
    const GenerateOptions options{.max_new_tokens = on_processor() ? 6 : 32, .numerics = Numerics::decode};
    const std::vector<Prompt> prompts = {{.tokens = {5, 7, 11}}, {.tokens = {13, 2, 3, 17, 19}}};
    const uint64_t before = graphs_so_far();
    all[graphs].second = generate(*lab.model, lab.memory, DType::f32, prompts, options);
    const uint64_t generated = graphs_so_far();
    const DeviceUse before_training = device_use(device_name());
    const RunPlan plan = plan_of_one_shape(lab.model->config().vocab_size);
    all[graphs].first = lab.train({plan}).at(plan.id);
    const bool on = graphs == "on";
    CHECK((generated > before) == on);
    const uint64_t trained = graphs_so_far();
    const DeviceUse after_training = device_use(device_name());
    if (has_blas(device_name()))
      CHECK(after_training.by_lt + after_training.by_gemm > before_training.by_lt + before_training.by_gemm);
    CHECK((trained > generated) == on);
    lab.train({plan_of_many_shapes(lab.model->config().vocab_size)});
    CHECK(graphs_so_far() == trained);
  }
  CHECK(all["on"] == all["off"]);
}
