#include <catch2/catch.hpp>

#include <set>

#include "core/base/test_data.h"
#include "experiments/sweep.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

Sweep sweep_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  std::string text = "model_name_or_path: m\n" + yaml;
  return parse_sweep(parse_yaml(text, "s.yaml"), text, "s.yaml", overrides);
}

// "dataset lora_r seed" of every run.
std::vector<std::string> runs_of(const Sweep& sweep) {
  std::vector<std::string> out;
  for (const SweepRun& run : sweep.runs)
    out.push_back(fmt::format("{} {} {}", run.config.text("dataset"), run.config.integer("lora_r"),
                              run.config.integer("seed")));
  return out;
}

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("a grid is expanded in file order with the last axis fastest") {
  Sweep sweep = sweep_of(
      "dataset: [a.json, b/c.jsonl]\nparameters:\n  lora_r: {values: [8, 16]}\n  seed: [1, 2]\n  lora_alpha: "
      "4\n");
  CHECK(runs_of(sweep) == Lines{"a.json 8 1", "a.json 8 2", "a.json 16 1", "a.json 16 2", "b/c.jsonl 8 1",
                                "b/c.jsonl 8 2", "b/c.jsonl 16 1", "b/c.jsonl 16 2"});
  CHECK(sweep.varied == Lines{"dataset", "lora_r", "seed"});
  CHECK(sweep.runs[0].name == "a-lora_r8-seed1");
  CHECK(sweep.runs[7].name == "c-lora_r16-seed2");
  CHECK(sweep.runs[3].config.number("lora_alpha") == 4);
  CHECK(sweep.name == "s");
}

TEST_CASE("zip varies options together as columns or as rows") {
  Lines expected = {"d 8 1", "d 16 2"};
  CHECK(runs_of(sweep_of("dataset: d\nzip: [{lora_r: [8, 16], seed: [1, 2]}]")) == expected);
  CHECK(runs_of(sweep_of("dataset: d\nzip:\n  - {lora_r: 8, seed: 1}\n  - {seed: 2, lora_r: 16}\n")) ==
        expected);
  CHECK_THROWS_WITH(sweep_of("dataset: d\nzip: [{lora_r: [8, 16], seed: [1]}]"),
                    Contains("`seed` has 1 values"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nlora_r: [1, 2]\nzip: [{lora_r: [8, 16], seed: [1, 2]}]"),
                    Contains("varied twice"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nzip: [{lora_r: [], seed: []}]"), Contains("has no values"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nzip: []"), Contains("has no entries"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nzip: [{lora_r: [8, 16], lora_rank: [1, 2]}]"),
                    Contains("varied twice"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nzip:\n  - {lora_r: 8, seed: 1}\n  - {lora_r: 16}\n"),
                    Contains("same options"));
}

TEST_CASE("exclude and include correct a grid") {
  Sweep sweep = sweep_of(
      "dataset: [a, b]\nlora_r: [8, 16]\nexclude: [{dataset: b, lora_r: [16, 32]}]\ninclude: [{dataset: c, "
      "lora_rank: 256}]\n");
  CHECK(runs_of(sweep) == Lines{"a 8 0", "a 16 0", "b 8 0", "c 256 0"});
  // A run that is there already is not there twice.
  CHECK(runs_of(sweep_of("dataset: [a, b]\ninclude: [{dataset: b}]\n")).size() == 2);
}

TEST_CASE("the list method takes runs as they are written") {
  CHECK(runs_of(sweep_of(
            "method: list\nseed: 5\nruns:\n  - {dataset: a, lora_r: 1}\n  - {dataset: b, seed: 6}\n")) ==
        Lines{"a 1 5", "b 64 6"});
  CHECK_THROWS_WITH(sweep_of("method: random\ndataset: d"), Contains("it can: grid, list"));
  CHECK_THROWS_WITH(sweep_of("method: list\ndataset: d"), Contains("needs `runs`"));
}

TEST_CASE("run_cap keeps the first runs and says how many are left out") {
  Sweep sweep = sweep_of("dataset: [a, b, c]\nrun_cap: 2\n");
  CHECK(runs_of(sweep) == Lines{"a 64 0", "b 64 0"});
  CHECK(sweep.left_out == 1);
}

TEST_CASE("a list is one value of an option that is a list and several under parameters") {
  CHECK(sweep_of("dataset: d\nlora_target_modules: [q_proj, v_proj]\n").runs.size() == 1);
  Sweep sweep = sweep_of("dataset: d\nparameters:\n  lora_target_modules: [all, [q_proj, v_proj]]\n");
  REQUIRE(sweep.runs.size() == 2);
  CHECK(sweep.runs[1].config.list("lora_target_modules") == Lines{"q_proj", "v_proj"});
}

TEST_CASE("overrides of the command line beat the file and its axes") {
  const std::string yaml = "dataset: [a, b]\nlora_r: [8, 16]\nseed: 1\ninclude: [{dataset: c, seed: 3}]\n";
  CHECK(runs_of(sweep_of(yaml, {"lora_r=4", "seed=9"})) == Lines{"a 4 9", "b 4 9", "c 4 9"});
  CHECK(runs_of(sweep_of("dataset: d\nseed: 1\n", {"seed=[1, 2]"})) == Lines{"d 64 1", "d 64 2"});
  CHECK(runs_of(sweep_of("dataset: d\nzip: [{lora_r: [8, 16], seed: [1, 2]}]", {"seed=3"})) ==
        Lines{"d 8 3", "d 16 3"});
  CHECK_THROWS_WITH(sweep_of(yaml, {"lora_rnak=4"}),
                    Contains("--set lora_rnak=4") && Contains("did you mean"));
}

TEST_CASE("base is a file or a map or both and what the sweep says beats it") {
  test::TemporaryFolder folder;
  write_file(folder.path() / "one.yaml", "lora_r: 8\nseed: 4\ndataset: x\n");
  write_file(folder.path() / "two.yaml", "base: one.yaml\nseed: 5\n");
  std::string text = "model_name_or_path: m\ndataset: d\nbase: [two.yaml, {lora_r: 32}]\n";
  Path path = folder.path() / "s.yaml";
  CHECK(runs_of(parse_sweep(parse_yaml(text, path.string()), text, path, {})) == Lines{"d 32 5"});
  CHECK_THROWS_WITH(sweep_of("base: nowhere.yaml\ndataset: d\n"),
                    Contains("s.yaml:2:7: no file `nowhere.yaml`"));
  write_file(folder.path() / "circle.yaml", "base: circle.yaml\n");
  text = "base: circle.yaml\n";
  CHECK_THROWS_WITH(parse_sweep(parse_yaml(text, path.string()), text, path, {}), Contains("circle"));
}

TEST_CASE("mistakes in a sweep file are told with their place") {
  CHECK_THROWS_WITH(sweep_of("dataset: d\nparamters: {}\n"),
                    "s.yaml:3:1: unknown key `paramters`; did you mean `parameters`?");
  CHECK_THROWS_WITH(sweep_of("dataset: d\nlora_r: [8, 8]\n"), "s.yaml:3:13: `lora_r` lists 8 twice");
  CHECK_THROWS_WITH(sweep_of("dataset: d\nlora_r: []\n"), Contains("has no values"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nparameters: {lora_r: {min: 1, max: 8}}\n"),
                    Contains("it can: value, values"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nearly_terminate: {type: hyperband}\n"),
                    Contains("not in this build"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nlora_r: 8\nlora_rank: 8\n"), Contains("two names of one option"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nseed: 8\nparameters: {seed: [1, 2]}\n"),
                    Contains("at the top and under `parameters`"));
  CHECK_THROWS_WITH(sweep_of("dataset: d\nload_in_4bit: true\nbits: 32\n"),
                    Contains("two names of one option (`bits`)"));
  CHECK(sweep_of("dataset: d\nload_in_4bit: false\nbits: 32\n").runs[0].config.integer("bits") == 32);
  CHECK_THROWS_WITH(sweep_of("seed: 1\n"), Contains("`dataset` is not set"));
  CHECK_THROWS_WITH(sweep_of("dataset: [a]\nexclude: [{dataset: a}]\n"), Contains("no run is left"));
}

TEST_CASE("a sweep without four bits is not quantized unless it says how") {
  const auto bits = [](const std::string& text) {
    std::vector<int64_t> out;
    for (const SweepRun& run : sweep_of("dataset: d\n" + text).runs)
      out.push_back(run.config.integer("bits"));
    return out;
  };
  using Bits = std::vector<int64_t>;
  CHECK(bits("load_in_4bit: false\nload_in_8bit: false\n") == Bits{32});
  CHECK(bits("load_in_4bit: false\nload_in_8bit: true\n") == Bits{8});
  CHECK(bits("load_in_8bit: true\nload_in_4bit: false\n") == Bits{8});
  CHECK(bits("base: {load_in_4bit: true}\nload_in_4bit: false\n") == Bits{32});
  CHECK(bits("base: {load_in_8bit: true}\nload_in_4bit: false\n") == Bits{8});
  CHECK(bits("load_in_4bit: [true, false]\n") == Bits{4, 32});
  CHECK(bits("load_in_4bit: false\nquant_type: [fp4, int8]\n") == Bits{4, 8});
  CHECK(bits("method: list\nload_in_4bit: true\nruns: [{seed: 1}, {load_in_4bit: false}]\n") == Bits{4, 32});
}

TEST_CASE("a grid that is too large is refused before it is expanded") {
  std::string values = "[";
  for (int i = 0; i < 1000; ++i) values += fmt::format("{}{}", i > 0 ? "," : "", i);
  values += "]";
  CHECK_THROWS_WITH(sweep_of("dataset: d\nseed: " + values + "\ndata_seed: " + values + "\n"),
                    Contains("more than 100000 runs"));
}

TEST_CASE("names of runs are distinct and fit for folders") {
  Sweep sweep = sweep_of("dataset: ['a/x.json', 'b/x.json', 'c d.json']\n");
  std::set<std::string> names;
  for (const SweepRun& run : sweep.runs) {
    names.insert(run.name);
    CHECK(run.name.find('/') == std::string::npos);
  }
  CHECK(names == std::set<std::string>{"x", "x-2", "c_d"});
  sweep = sweep_of("dataset: ['x-2.json', 'a/x.json', 'b/x.json']\n");
  CHECK(sweep.runs[2].name == "x-3");
}

TEST_CASE("evaluations and tournaments are read and checked") {
  Sweep sweep = sweep_of(
      "dataset: d\nevals:\n  - {task: mmlu, data: t, protocol: hendrycks, shots: 5, limit: 4, at: end, base: "
      "true}\n"
      "  - {task: loss, at: [start, end]}\n"
      "tournaments:\n  - {name: n, files: 'x/*.jsonl', k: 4, orders: 10000}\n  - {name: p, preset: q, "
      "bootstrap: 10}\n");
  REQUIRE(sweep.evals.size() == 2);
  CHECK(sweep.evals[0].mmlu.limit == 4);
  CHECK(sweep.evals[0].base);
  CHECK((sweep.evals[1].at_start && sweep.evals[1].at_end));
  REQUIRE(sweep.tournaments.size() == 2);
  CHECK(sweep.tournaments[0].files == Lines{"x/*.jsonl"});
  CHECK(sweep.tournaments[0].k == 4);

  auto bad = [](const std::string& yaml) { sweep_of("dataset: d\n" + yaml); };
  CHECK_THROWS_WITH(bad("evals: [{task: mmlo, data: d}]"), Contains("did you mean `mmlu`?"));
  CHECK_THROWS_WITH(bad("evals: [{task: mmlu}]"), Contains("task mmlu needs `data`"));
  CHECK_THROWS_WITH(bad("evals: [{task: mmlu, data: d, shot: 5}]"), Contains("did you mean `shots`?"));
  CHECK_THROWS_WITH(bad("evals: [{task: mmlu, data: d, shots: 6}]"), Contains("at most 5"));
  CHECK_THROWS_WITH(bad("evals: [{task: mmlu, data: d, at: start}]"), Contains("base: true"));
  CHECK_THROWS_WITH(bad("evals: [{task: loss, at: 100}]"), Contains("it can: start, end"));
  CHECK_THROWS_WITH(bad("evals: {task: loss}"), Contains("must be a list"));
  CHECK_THROWS_WITH(bad("tournaments: [{files: x}]"), Contains("needs `name`"));
  CHECK_THROWS_WITH(bad("tournaments: [{name: x}]"), Contains("`files` or `preset`"));
  CHECK_THROWS_WITH(bad("tournaments: [{name: x, preset: p}, {name: x, preset: p}]"),
                    Contains("two tournaments"));
  CHECK_THROWS_WITH(bad("tournaments: [{name: x, preset: p, votes: all}]"), Contains("each"));
}
