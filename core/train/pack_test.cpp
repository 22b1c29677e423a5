#include "core/train/pack.h"

#include <catch2/catch.hpp>

#include <limits>

#include "core/base/parallel.h"
#include "core/train/test_runs.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

TEST_CASE("Four runs packed learn the same bits as each of them alone") {
  for (const Variant& variant : runnable_variants(EmulatedGpu::included)) {
    INFO(variant);
    Lab lab(variant);
    std::vector<RunPlan> plans = lab.plans();
    if (variant.backend == "cuda-emulated")  // slow
      for (RunPlan& plan : plans) plan.train.max_steps = std::min<int64_t>(plan.train.max_steps, 2);
    std::map<std::string, Outcome> packed = lab.train(plans);
    REQUIRE(packed.size() == 4);
    for (const RunPlan& plan : plans) {
      INFO(plan.id);
      const Checkpointing mode = plan.id == "a" ? Checkpointing::offload : Checkpointing::none;
      Outcome alone = lab.train({plan}, mode).at(plan.id);
      CHECK(alone.status == RunStatus::finished);
      CHECK(alone.losses.size() == static_cast<size_t>(plan.train.max_steps));
      CHECK(packed.at(plan.id) == alone);
    }
  }
}

TEST_CASE("A micro-batch of four has the bits of four micro-batches of one") {
  for (const Variant& variant : runnable_variants(EmulatedGpu::included)) {
    INFO(variant);
    Lab lab(variant);
    const bool slow = variant.backend == "cuda-emulated";
    for (RunPlan plan : lab.plans()) {
      if (slow && plan.id != "a") continue;
      plan.train.max_steps = slow ? 1 : 3;
      plan.train.micro_batch = 4;
      plan.train.accumulation = 1;
      Outcome whole = lab.train({plan}).at(plan.id);
      plan.train.micro_batch = 1;
      plan.train.accumulation = 4;
      CHECK(lab.train({plan}).at(plan.id) == whole);
      plan.train.micro_batch = 2;
      plan.train.accumulation = 2;
      CHECK(lab.train({plan}).at(plan.id) == whole);
    }
  }
}

TEST_CASE("Training gives the same bits on one thread and on two") {
  for (const Variant& variant : runnable_variants()) {
    INFO(variant);
    Lab lab(variant);
    const int before = thread_count();
    set_thread_count(1);
    std::map<std::string, Outcome> one = lab.train(lab.plans());
    set_thread_count(2);
    std::map<std::string, Outcome> two = lab.train(lab.plans());
    set_thread_count(before);
    CHECK(one == two);
  }
}

TEST_CASE("Training gives the same bits whatever gradient checkpointing keeps") {
  for (const Variant& variant : runnable_variants(EmulatedGpu::included)) {
    INFO(variant);
    Lab lab(variant);
    std::vector<RunPlan> plans = lab.plans();
    if (variant.backend == "cuda-emulated") {  // slow
      plans.resize(2);
      for (RunPlan& plan : plans) plan.train.max_steps = 1;
    }
    auto kept = lab.train(plans);
    for (Checkpointing mode : {Checkpointing::selective, Checkpointing::block}) {
      INFO(name_of(mode));
      CHECK(lab.train(plans, mode) == kept);
    }
  }
}

TEST_CASE("A run whose loss is not a number ends so while the others go on") {
  Lab lab("reference");
  std::vector<RunPlan> plans = lab.plans();
  TrainPack pack = lab.pack();
  for (const RunPlan& plan : plans) pack.add(lab.run(plan));
  Lora& broken = pack.find("b")->adapter().lora.begin()->second;
  std::vector<float> nan(static_cast<size_t>(broken.b.value.size()), std::numeric_limits<float>::quiet_NaN());
  broken.b.value.copy_from(Tensor::from_floats(lab.memory, broken.b.value.shape(), lab.type, nan));
  Recorder recorder;
  while (pack.active()) pack.micro_step(recorder);
  CHECK(pack.find("b")->status() == RunStatus::nan_loss);
  CHECK(pack.find("b")->step() == 0);
  CHECK(recorder.steps.count("b") == 0);
  for (const char* id : {"a", "c", "d"}) CHECK(pack.find(id)->status() == RunStatus::finished);
  CHECK(outcome_of(*pack.find("c"), recorder) == lab.train({plans[2]}).at("c"));
}

TEST_CASE("A run without a label in its effective batch ends so while the others go on") {
  Lab lab("reference");
  std::vector<RunPlan> plans = lab.plans();
  for (size_t i = 3; i < 6; ++i) {  // the second effective batch of "a"
    TokenExample& e = plans[0].examples[i];
    e.labels.assign(e.ids.size(), -100);
  }
  std::map<std::string, Outcome> packed = lab.train(plans);
  CHECK(packed.at("a").status == RunStatus::no_labels);
  CHECK(packed.at("a").losses.size() == 1);
  CHECK(packed.at("d").status == RunStatus::finished);
  CHECK(lab.train({plans[0]}).at("a") == packed.at("a"));
}

TEST_CASE("A run whose examples end before its last step ends so while the others go on") {
  Lab lab("reference");
  std::vector<RunPlan> plans = lab.plans();
  const RunPlan& plan = plans[0];
  TrainPack pack = lab.pack();
  auto ending = std::make_unique<EndingSource>(plan.examples);  // 11 examples: three steps of three
  pack.add(std::make_unique<Run>(plan.id, plan.lora, plan.train,
                                 make_adapter(*lab.model, plan.lora, lab.memory, lab.type, plan.train.seed),
                                 std::move(ending), lab.memory, lab.type));
  pack.add(lab.run(plans[2]));
  Recorder recorder;
  while (pack.active()) pack.micro_step(recorder);
  CHECK(pack.find("a")->status() == RunStatus::no_data);
  CHECK(std::string(name_of(RunStatus::no_data)) == "no_data");
  CHECK(pack.find("a")->step() == 3);
  TemporaryFolder folder;
  pack.find("a")->save(folder.path() / "a");  // it stands between two steps
  CHECK(outcome_of(*pack.find("c"), recorder) == lab.train({plans[2]}).at("c"));
  RunPlan shorter = plan;
  shorter.train.max_steps = 3;
  Outcome three = lab.train({shorter}).at("a"), ended = outcome_of(*pack.find("a"), recorder);
  CHECK(ended.params == three.params);
  CHECK(ended.losses == three.losses);
}

TEST_CASE("An example that the model cannot take is an error that names the run and what to do") {
  Lab lab("reference");
  auto refusal = [&](const TokenExample& example) {
    RunPlan plan = lab.plans()[0];
    plan.examples = {example};
    TrainPack pack = lab.pack();
    pack.add(lab.run(plan));
    Recorder recorder;
    CHECK_THROWS_AS(evaluate_loss(*lab.model, lab.memory, lab.type, nullptr, plan.examples, 1), Error);
    try {
      pack.micro_step(recorder);
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::data);
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const auto most = static_cast<size_t>(lab.model->config().max_positions);
  CHECK_THAT(refusal({.ids = std::vector<int32_t>(most + 1, 3), .labels = std::vector<int32_t>(most + 1, 3)}),
             Catch::Contains("run a: an example of 257 tokens") && Catch::Contains("takes 256") &&
                 Catch::Contains("source_max_len"));
  CHECK_THAT(refusal({.ids = {5, 61}, .labels = {5, 6}}),
             Catch::Contains("run a: token 61 is outside the model's vocabulary of 61"));
}

TEST_CASE("A held-out loss without labels is an error and not a perfect one") {
  Lab lab("reference");
  std::vector<TokenExample> examples = {{.ids = {5, 6, 7}, .labels = {-100, -100, -100}}};
  EvalLoss loss = evaluate_loss(*lab.model, lab.memory, lab.type, nullptr, examples, 1);
  CHECK(loss.labels == 0);
  CHECK_THROWS_WITH(loss.mean(), Catch::Contains("no labels"));
}

TEST_CASE("The loss falls on a task that can be learned") {
  for (const Variant& variant : runnable_variants()) {
    INFO(variant);
    Lab lab(variant);
    RunPlan plan = lab.plans()[2];
    plan.examples = random_token_examples(3, 6, lab.model->config().vocab_size);
    plan.lora.dropout = 0;
    plan.train = {.micro_batch = 6, .accumulation = 1, .max_steps = 25, .learning_rate = 2e-2, .seed = 3};
    TrainPack pack = lab.pack();
    pack.add(lab.run(plan));
    Run& run = *pack.find(plan.id);
    EvalLoss before = evaluate_loss(*lab.model, lab.memory, lab.type, &run.adapter(), plan.examples, 2);
    Recorder recorder;
    while (pack.active()) pack.micro_step(recorder);
    EvalLoss after = evaluate_loss(*lab.model, lab.memory, lab.type, &run.adapter(), plan.examples, 2);
    CHECK(after.mean() < 0.5 * before.mean());
    CHECK(recorder.steps.at(plan.id).front().loss == before.mean());  // B = 0, and no dropout
    CHECK(after.labels == recorder.steps.at(plan.id).front().labels);
  }
}

TEST_CASE("A held-out loss does not depend on its batch and a fresh adapter changes nothing") {
  for (const Variant& variant : runnable_variants()) {
    INFO(variant);
    Lab lab(variant);
    RunPlan plan = lab.plans()[0];
    auto run = lab.run(plan);
    EvalLoss base = evaluate_loss(*lab.model, lab.memory, lab.type, nullptr, plan.examples, 3);
    EvalLoss one = evaluate_loss(*lab.model, lab.memory, lab.type, &run->adapter(), plan.examples, 1);
    EvalLoss many = evaluate_loss(*lab.model, lab.memory, lab.type, &run->adapter(), plan.examples, 100);
    CHECK(one.loss_sum == many.loss_sum);
    CHECK(one.loss_sum == base.loss_sum);
    CHECK(one.labels == many.labels);
    CHECK(one.mean() > 0);
  }
}

TEST_CASE("Collating shifts labels inside sequences and keys rows by their example") {
  Lab lab("reference");
  RunPlan plan = lab.plans()[0];
  auto run = lab.run(plan);
  TokenExample e{.ids = {5, 6, 7}, .labels = {-100, 6, 7}};
  std::vector<Run*> runs = {run.get()};
  std::vector<Run::Micro> micros = {{.examples = {e, e}, .first = 4}};
  Batch batch = collate(runs, micros);
  CHECK(batch.axis.tokens == std::vector<int32_t>{5, 6, 7, 5, 6, 7});
  CHECK(batch.axis.positions == std::vector<int32_t>{0, 1, 2, 0, 1, 2});
  CHECK(batch.axis.cu == std::vector<int32_t>{0, 3, 6});
  CHECK(batch.targets == std::vector<int32_t>{6, 7, -100, 6, 7, -100});
  CHECK(batch.axis.keys[0].example == 4);
  CHECK(batch.axis.keys[5].example == 5);
  CHECK(batch.axis.keys[5].position == 2);
  CHECK(batch.runs[0].labels == 4);
  CHECK(batch.axis.spans[0].hi == 6);
  CHECK(batch.axis.spans[0].seed == plan.train.seed);
}
