// Sweeps that are killed, stopped and run again, through the program itself.
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/json.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

// The folders of a sweep's runs, by the end of their names.
Path run_folder(const Path& out, const std::string& name) {
  for (const auto& entry : std::filesystem::directory_iterator(out / "test"))
    if (entry.path().filename().string().ends_with("-" + name)) return entry.path();
  return {};
}

std::string adapter_bytes(const Path& out, const std::string& name) {
  return read_file(run_folder(out, name) / "adapter" / "adapter_model.safetensors");
}

std::vector<std::string> run_names() {
  return {"alpaca", "dialogues"};
}

// Trains the sweep without a disturbance in another folder and store.
void train_undisturbed(const Workbench& bench) {
  ProgramEnd end = bench.run({"sweep", "run", "s.yaml", "--set", "output_dir=calm", "--db", "calm.db"});
  INFO(end.err);
  REQUIRE(end.code == 0);
}

void check_same_adapters(const Workbench& bench) {
  for (const std::string& name : run_names())
    CHECK(adapter_bytes(bench.path() / "out", name) == adapter_bytes(bench.path() / "calm", name));
}

// Starts the sweep and returns once its first run has a checkpoint; far from its end.
std::unique_ptr<Program> start_until_saved(const Workbench& bench) {
  auto program = std::make_unique<Program>(bench.path(), std::vector<std::string>{"sweep", "run", "s.yaml"});
  for (int i = 0; i < 30'000; ++i) {
    std::error_code none;
    if (std::filesystem::exists(bench.path() / "out" / "test", none))
      for (const std::string& name : run_names()) {
        Path folder = run_folder(bench.path() / "out", name);
        if (!folder.empty() && std::filesystem::exists(folder / "checkpoint-20")) return program;
      }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  FAIL("no checkpoint appeared");
  return program;
}

// Long enough to be killed far from its end; few checkpoints, since every one waits for the disk.
void write_long_sweep(const Workbench& bench) {
  bench.write_sweep("s.yaml", "evals: [{task: loss, at: [start, end]}]\n");
  std::string text = read_file(bench.path() / "s.yaml");
  for (const auto& [from, to] : {std::pair<std::string, std::string>{"max_steps: 6", "max_steps: 120"},
                                 {"save_steps: 2", "save_steps: 20"}})
    text.replace(text.find(from), from.size(), to);
  bench.write("s.yaml", text);
}

}  // namespace

TEST_CASE("a sweep whose processes are killed goes on from its checkpoints to the same adapters") {
  Workbench bench;
  write_long_sweep(bench);
  train_undisturbed(bench);
  auto program = start_until_saved(bench);
  if (pid_t worker = program->worker(); worker > 0) ::kill(worker, SIGKILL);
  ::kill(program->pid(), SIGKILL);
  CHECK(program->wait().code == 128 + SIGKILL);

  ProgramEnd again = bench.run({"sweep", "run", "s.yaml"});
  INFO(again.err);
  CHECK(again.code == 0);
  CHECK_THAT(again.err, Contains("goes on after step"));
  check_same_adapters(bench);
  CHECK(query(bench, "SELECT count(*) AS n FROM attempt WHERE outcome = 'lost'")[0]["n"] >= 1);
  CHECK(query(bench, "SELECT count(*) AS n FROM run WHERE state = 'finished'")[0]["n"] == 2);
}

TEST_CASE("a worker that outlives its killed parent saves and the next sweep waits for it", "[slow]") {
  Workbench bench;
  write_long_sweep(bench);
  train_undisturbed(bench);
  auto program = start_until_saved(bench);
  ::kill(program->pid(), SIGKILL);
  program->wait();
  ProgramEnd again = bench.run({"sweep", "run", "s.yaml"});
  INFO(again.err);
  CHECK(again.code == 0);
  CHECK_THAT(again.err, Contains("goes on after step"));
  check_same_adapters(bench);
}

TEST_CASE("a killed worker is told and its runs go on at the next start", "[slow]") {
  Workbench bench;
  write_long_sweep(bench);
  train_undisturbed(bench);
  auto program = start_until_saved(bench);
  pid_t worker = program->worker();
  REQUIRE(worker > 0);
  ::kill(worker, SIGKILL);
  ProgramEnd end = program->wait();
  CHECK(end.code == 1);
  CHECK_THAT(end.err, Contains("ended by signal 9"));
  CHECK(query(bench, "SELECT count(*) AS n FROM run WHERE state = 'killed'")[0]["n"] == 2);
  CHECK(bench.run({"sweep", "run", "s.yaml"}).code == 0);
  check_same_adapters(bench);
}

TEST_CASE("one interrupt saves every run and exits with 130") {
  Workbench bench;
  write_long_sweep(bench);
  train_undisturbed(bench);
  auto program = start_until_saved(bench);
  ::kill(program->pid(), SIGINT);
  ProgramEnd end = program->wait();
  CHECK(end.code == 130);
  CHECK_THAT(end.err, Contains("every run is saved at its next step") && Contains("goes on from here"));
  CHECK(query(bench, "SELECT count(*) AS n FROM attempt WHERE outcome = 'interrupted'")[0]["n"] == 2);
  CHECK(query(bench, "SELECT count(*) AS n FROM run WHERE state = 'pending'")[0]["n"] == 2);
  ProgramEnd again = bench.run({"sweep", "run", "s.yaml"});
  CHECK(again.code == 0);
  CHECK_THAT(again.err, Contains("goes on after step"));
  check_same_adapters(bench);
}

TEST_CASE("a worker that somebody else stops is a failure of the sweep") {
  Workbench bench;
  write_long_sweep(bench);
  auto program = start_until_saved(bench);
  pid_t worker = program->worker();
  REQUIRE(worker > 0);
  ::kill(worker, SIGTERM);
  ProgramEnd end = program->wait();
  CHECK(end.code == 1);
  CHECK_THAT(end.err, Contains("somebody else stopped the worker"));
  CHECK(query(bench, "SELECT count(*) AS n FROM run WHERE state = 'pending'")[0]["n"] == 2);
}

TEST_CASE("two interrupts end the sweep at once") {
  Workbench bench;
  write_long_sweep(bench);
  auto program = start_until_saved(bench);
  pid_t worker = program->worker();
  REQUIRE(worker > 0);
  ::kill(program->pid(), SIGINT);
  ::kill(program->pid(), SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ::kill(program->pid(), SIGINT);
  ProgramEnd end = program->wait();
  CHECK(end.code == 130);
  CHECK(::kill(worker, 0) == -1);
  CHECK(errno == ESRCH);
}

TEST_CASE("a sweep that is running is not run a second time") {
  Workbench bench;
  write_long_sweep(bench);
  auto program = start_until_saved(bench);
  // The second one's output goes elsewhere, so that the first one's is kept.
  TemporaryFolder other;
  std::filesystem::create_symlink(bench.path() / "model", other.path() / "model");
  for (const char* file : {"alpaca.json", "dialogues.jsonl", "s.yaml"})
    std::filesystem::copy(bench.path() / file, other.path() / file);
  std::string out = "output_dir=" + (bench.path() / "out").string();
  ProgramEnd second = Program(other.path(), {"sweep", "run", "s.yaml", "--set", out}).wait();
  CHECK(second.code == 1);
  CHECK_THAT(second.err, Contains("is running sweep test"));
  ::kill(program->pid(), SIGINT);
  CHECK(program->wait().code == 130);
}

TEST_CASE("a finished sweep has nothing to do and a new evaluation trains nothing") {
  Workbench bench;
  bench.write_sweep("s.yaml", "evals: [{task: loss, at: [start, end]}]\n");
  ProgramEnd first = bench.run({"sweep", "run", "s.yaml"});
  INFO(first.err);
  REQUIRE(first.code == 0);
  ProgramEnd second = bench.run({"sweep", "run", "s.yaml"});
  CHECK(second.code == 0);
  CHECK_THAT(second.err, Contains("nothing to do"));
  CHECK_THAT(second.out, Contains("alpaca") && Contains("dialogues"));

  bench.write_sweep("s.yaml",
                    "evals:\n  - {task: loss, at: [start, end]}\n"
                    "  - {task: mmlu, data: mmlu, shots: 2, limit: 2, base: true}\n");
  ProgramEnd third = bench.run({"sweep", "run", "s.yaml"});
  INFO(third.err);
  CHECK(third.code == 0);
  CHECK_THAT(third.err, Contains("0 to train in 1 pack") && Contains("3 evaluations to do of 7"));
  CHECK(query(bench, "SELECT count(*) AS n FROM attempt")[0]["n"] == 2);
  CHECK(query(bench, "SELECT count(*) AS n FROM evaluation")[0]["n"] == 7);
}

TEST_CASE("runs packed together end in the same adapters as runs alone") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  CHECK(bench.run({"sweep", "run", "s.yaml"}).code == 0);
  for (const char* data : {"alpaca.json", "dialogues.jsonl"}) {
    ProgramEnd alone = bench.run({"sweep", "run", "s.yaml", "--set", std::string("dataset=") + data, "--set",
                                  "output_dir=calm", "--db", "calm.db", "--threads", "1"});
    INFO(alone.err);
    CHECK(alone.code == 0);
  }
  // With one data set nothing is varied: the run has the sweep's name.
  std::vector<std::string> packed, alone;
  for (const std::string& name : run_names()) packed.push_back(adapter_bytes(bench.path() / "out", name));
  for (const auto& entry : std::filesystem::directory_iterator(bench.path() / "calm" / "test"))
    if (entry.is_directory())
      alone.push_back(read_file(entry.path() / "adapter" / "adapter_model.safetensors"));
  std::sort(packed.begin(), packed.end());
  std::sort(alone.begin(), alone.end());
  CHECK(packed == alone);
}
