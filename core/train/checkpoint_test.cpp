// Saving and restoring runs.

#include <catch2/catch.hpp>

#include "core/base/test_errors.h"
#include "core/io/safetensors.h"
#include "core/io/small_disk.h"
#include "core/train/test_runs.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

namespace {

// Until the run has done `steps` steps.
void advance(TrainPack& pack, Observer& observer, const std::string& id, int64_t steps) {
  while (pack.find(id)->step() < steps) pack.micro_step(observer);
}

Json read(const Path& path) {
  return Json::parse(read_file(path));
}

}  // namespace

TEST_CASE("A run that is saved and restored on a fresh backend goes on bit for bit") {
  for (const Variant& variant : runnable_variants())
    for (DType type : {DType::f32, DType::f64}) {
      if (type == DType::f64 && variant.backend != "reference") continue;
      INFO(variant << " " << name_of(type));
      TemporaryFolder folder;
      Lab lab(variant.backend, type, variant.operands);
      for (const RunPlan& plan : lab.plans()) {
        INFO(plan.id);
        Outcome whole = lab.train({plan}).at(plan.id);
        Recorder recorder;
        {
          TrainPack first = lab.pack();
          first.add(lab.run(plan));
          advance(first, recorder, plan.id, 2);
          first.find(plan.id)->save(folder.path() / plan.id);
          first.micro_step(recorder);  // what comes after the checkpoint is lost
          recorder.steps[plan.id].resize(2);
        }
        Lab again(variant.backend, type, variant.operands);
        TrainPack second = again.pack();
        second.add(again.run(plan));
        second.find(plan.id)->restore(folder.path() / plan.id);
        CHECK(second.find(plan.id)->step() == 2);
        while (second.active()) second.micro_step(recorder);
        CHECK(outcome_of(*second.find(plan.id), recorder) == whole);
      }
    }
}

TEST_CASE(
    "A run whose optimizer keeps its states in host memory has the same bits, and goes on from either") {
  for (const std::string& backend : runnable_backends(EmulatedGpu::included)) {
    INFO(backend);
    Lab lab(backend);
    RunPlan resident = lab.plans()[0];
    resident.train.max_steps = 3;
    resident.train.accumulation = 1;
    RunPlan paged = resident;
    paged.train.slab_bytes = 4096;  // several slabs
    const Outcome whole = lab.train({resident}).at(resident.id);
    CHECK(lab.train({paged}).at(paged.id) == whole);
    // The emulation is slow.
    std::vector<std::pair<RunPlan, RunPlan>> turns = {{paged, paged}};
    if (backend == "reference") turns = {{resident, paged}, {paged, resident}};
    for (const auto& [before, after] : turns) {
      TemporaryFolder folder;
      Recorder recorder;
      TrainPack first = lab.pack(), second = lab.pack();
      first.add(lab.run(before));
      advance(first, recorder, before.id, 2);
      first.find(before.id)->save(folder.path() / "run");
      second.add(lab.run(after));
      second.find(after.id)->restore(folder.path() / "run");
      while (second.active()) second.micro_step(recorder);
      CHECK(outcome_of(*second.find(after.id), recorder) == whole);
    }
  }
}

TEST_CASE("A run that moves from one pack to another goes on bit for bit") {
  Lab lab("reference");
  std::vector<RunPlan> plans = lab.plans();
  Recorder recorder;
  TrainPack first = lab.pack(), second = lab.pack(Checkpointing::block);
  first.add(lab.run(plans[0]));
  first.add(lab.run(plans[1]));
  second.add(lab.run(plans[2]));
  advance(first, recorder, "a", 2);
  second.micro_step(recorder);
  second.add(first.take("a"));
  CHECK(first.find("a") == nullptr);
  while (first.active()) first.micro_step(recorder);
  while (second.active()) second.micro_step(recorder);
  std::map<std::string, Outcome> whole = lab.train(plans);
  CHECK(outcome_of(*second.find("a"), recorder) == whole.at("a"));
  CHECK(outcome_of(*first.find("b"), recorder) == whole.at("b"));
  CHECK(outcome_of(*second.find("c"), recorder) == whole.at("c"));
}

TEST_CASE("A checkpoint has the files and keys that readers of the Trainer expect") {
  TemporaryFolder folder;
  Lab lab("reference");
  RunPlan plan = lab.plans()[1];
  TrainPack pack = lab.pack();
  pack.add(lab.run(plan));
  Recorder recorder;
  advance(pack, recorder, plan.id, 3);
  const Path path = folder.path() / "checkpoint-3";
  pack.find(plan.id)->save(path, "tiny");
  CHECK(!std::filesystem::exists(folder.path() / "checkpoint-3.tmp"));

  Json config = read(path / "adapter_config.json");
  CHECK(config["peft_type"] == "LORA");
  CHECK(config["base_model_name_or_path"] == "tiny");
  CHECK(config["r"] == 8);
  CHECK(config["target_modules"] == Json({"q_proj", "v_proj"}));
  CHECK(SafetensorsFile(path / "adapter_model.safetensors").tensors().size() == 8);
  CHECK(SafetensorsFile(path / "optimizer.safetensors").tensors().size() == 16);

  Json state = read(path / "trainer_state.json");
  CHECK(state["global_step"] == 3);
  CHECK(state["max_steps"] == 6);
  for (const char* unknown : {"num_train_epochs", "total_flos"}) CHECK_FALSE(state.contains(unknown));
  REQUIRE(state["log_history"].size() == 3);
  const StepRecord& second = recorder.steps.at(plan.id)[1];
  const Json& entry = state["log_history"][1];
  CHECK(entry["step"] == 2);
  CHECK(entry["loss"] == second.loss);
  CHECK(entry["grad_norm"] == second.grad_norm);
  CHECK(entry["learning_rate"] == second.learning_rate);
  CHECK(entry["epoch"] == 8.0 / 11);
}

TEST_CASE("Scores stand in the log_history behind their step and survive a restart") {
  TemporaryFolder folder;
  Lab lab("reference");
  const RunPlan plan = lab.plans()[1];
  const StepScores mmlu = {{"mmlu_eval_accuracy", 0.25}, {"mmlu_loss", 1.5}}, loss = {{"eval_loss", 3.0}};
  Recorder recorder;
  TrainPack pack = lab.pack();
  pack.add(lab.run(plan));
  Run& run = *pack.find(plan.id);
  advance(pack, recorder, plan.id, 2);
  run.save(folder.path() / "early");
  run.log_scores(2, mmlu);
  run.log_scores(2, loss);
  run.log_scores(2, mmlu);  // once more: nothing is twice
  run.save(folder.path() / "whole");
  const Json log = read(folder.path() / "whole/trainer_state.json")["log_history"];
  REQUIRE(log.size() == 4);
  CHECK(log[2] == Json{{"eval_loss", 3.0}, {"step", 2}, {"epoch", log[1]["epoch"]}});
  CHECK(log[3] ==
        Json{{"mmlu_eval_accuracy", 0.25}, {"mmlu_loss", 1.5}, {"step", 2}, {"epoch", log[1]["epoch"]}});

  // Told to files that were written before, in whatever order; not to those that end before the step.
  const Path early = folder.path() / "early/trainer_state.json";
  add_scores(early, 2, mmlu);
  add_scores(early, 2, mmlu);
  add_scores(early, 2, loss);
  CHECK(read_file(early) == read_file(folder.path() / "whole/trainer_state.json"));
  add_scores(early, 3, loss);
  CHECK(read_file(early) == read_file(folder.path() / "whole/trainer_state.json"));

  // A run that goes on from there, and knows what is said of a later step, ends with the same history.
  advance(pack, recorder, plan.id, 3);
  run.log_scores(3, loss);
  while (pack.active()) pack.micro_step(recorder);
  run.save_history(folder.path() / "end.json");
  TrainPack again = lab.pack();
  again.add(lab.run(plan));
  again.find(plan.id)->restore(folder.path() / "early");
  again.find(plan.id)->log_scores(3, loss);
  again.find(plan.id)->save(folder.path() / "again");
  CHECK(read_file(folder.path() / "again/trainer_state.json") == read_file(early));
  while (again.active()) again.micro_step(recorder);
  again.find(plan.id)->save_history(folder.path() / "again.json");
  CHECK(read_file(folder.path() / "again.json") == read_file(folder.path() / "end.json"));

  write_file(early, "{}");
  CHECK_THAT(message_of(ErrorKind::data, [&] { add_scores(early, 2, loss); }), Catch::Contains("early"));
}

TEST_CASE("A checkpoint that does not fit or is damaged is refused") {
  TemporaryFolder folder;
  Lab lab("reference");
  std::vector<RunPlan> plans = lab.plans();
  TrainPack pack = lab.pack();
  pack.add(lab.run(plans[0]));
  Recorder recorder;
  advance(pack, recorder, "a", 1);
  const Path path = folder.path() / "checkpoint-1";
  pack.find("a")->save(path);

  RunPlan other = plans[0];
  other.train.seed = 99;
  CHECK_THAT(message_of(ErrorKind::data, [&] { lab.run(other)->restore(path); }), Catch::Contains("seed 11"));
  other = plans[0];
  other.lora.r = 5;
  CHECK_THAT(message_of(ErrorKind::data, [&] { lab.run(other)->restore(path); }),
             Catch::Contains("`r` is 2, but this run's is 5"));
  other = plans[0];
  other.lora.alpha = 17;
  CHECK_THAT(message_of(ErrorKind::data, [&] { lab.run(other)->restore(path); }),
             Catch::Contains("`lora_alpha` is 16"));
  other = plans[0];
  other.lora.dropout = 0.2f;
  CHECK_THAT(message_of(ErrorKind::data, [&] { lab.run(other)->restore(path); }),
             Catch::Contains("`lora_dropout` is 0.1"));
  other = plans[0];
  other.lora.use_rslora = true;
  CHECK_THAT(message_of(ErrorKind::data, [&] { lab.run(other)->restore(path); }),
             Catch::Contains("`use_rslora` is false"));
  other = plans[0];
  other.lora.targets = {"q_proj"};  // fewer linears than the checkpoint has
  CHECK_THAT(message_of(ErrorKind::data, [&] { lab.run(other)->restore(path); }),
             Catch::Contains("adapter_model.safetensors: 28 tensors, but this run's adapter has 4"));
  other = plans[0];
  write_file(path / "trainer_state.json", "{}");
  CHECK_THAT(message_of(ErrorKind::data, [&] { lab.run(other)->restore(path); }),
             Catch::Contains("not readable"));
  write_file(path / "trainer_state.json", "{");
  CHECK_THAT(message_of(ErrorKind::data, [&] { lab.run(other)->restore(path); }),
             Catch::Contains("trainer_state.json"));
  std::filesystem::remove_all(path);
  CHECK_THAT(message_of(ErrorKind::data, [&] { lab.run(other)->restore(path); }),
             Catch::Contains("checkpoint-1"));
}

TEST_CASE("A checkpoint in the middle of a step is refused and impossible settings too") {
  TemporaryFolder folder;
  Lab lab("reference");
  RunPlan plan = lab.plans()[0];  // three micro-batches a step
  TrainPack pack = lab.pack();
  pack.add(lab.run(plan));
  Recorder recorder;
  pack.micro_step(recorder);
  CHECK_THROWS_AS(pack.find("a")->save(folder.path() / "x"), Error);
  CHECK(!std::filesystem::exists(folder.path() / "x"));
  plan.train.accumulation = 0;
  CHECK_THROWS_WITH(lab.run(plan), Catch::Contains("gradient_accumulation_steps"));
  plan = lab.plans()[0];
  plan.train.epsilon = 0;
  CHECK_THROWS_WITH(lab.run(plan), Catch::Contains("adam_epsilon"));
  plan = lab.plans()[0];
  plan.train.weight_decay = -1;
  CHECK_THROWS_WITH(lab.run(plan), Catch::Contains("weight_decay"));
}

TEST_CASE("A checkpoint that the disk has no room for is an error that leaves the one before intact") {
  SmallDisk disk("64k");
  if (!disk.mounted()) return;
  Lab lab("reference");
  RunPlan plan = lab.plans()[0];
  TrainPack pack = lab.pack();
  pack.add(lab.run(plan));
  Recorder recorder;
  advance(pack, recorder, plan.id, 1);
  const Path path = disk.path() / "checkpoint";
  pack.find(plan.id)->save(path);
  const std::string before = read_file(path / "trainer_state.json");

  write_file(disk.path() / "filler", std::string(std::filesystem::space(disk.path()).available - 8192, 'x'));
  advance(pack, recorder, plan.id, 2);
  CHECK_THROWS_WITH(pack.find(plan.id)->save(path),
                    Catch::Contains(disk.path().string()) && Catch::Contains("No space left on device"));
  CHECK(read_file(path / "trainer_state.json") == before);
  CHECK(std::distance(std::filesystem::directory_iterator(disk.path()), {}) == 2);  // it and the filler
  std::filesystem::remove(disk.path() / "filler");
  lab.run(plan)->restore(path);
}
