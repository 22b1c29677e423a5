// What users see of the GPUs of their machine, and of machines without one: plug-ins that are not there, do
// not load, find no driver, and (kernels/cuda/test_plugin.cpp) find GPUs.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <sstream>

#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

// The program with another plug-in.
ProgramEnd run_with(const Workbench& bench, const std::string& plugin, const std::string& gpus,
                    const std::vector<std::string>& arguments) {
  ::setenv("QLORA_CUDA_PLUGIN", plugin.c_str(), 1);
  ::setenv("QLORA_TEST_GPUS", gpus.c_str(), 1);
  ProgramEnd end = bench.run(arguments);
  ::unsetenv("QLORA_CUDA_PLUGIN");
  ::unsetenv("QLORA_TEST_GPUS");
  return end;
}

// The lines of a text that hold `part`.
std::vector<std::string> lines_with(const std::string& text, const std::string& part) {
  std::vector<std::string> found;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    if (line.find(part) != std::string::npos) found.push_back(line);
  return found;
}

}  // namespace

TEST_CASE("qlora doctor lists all GPUs, or says in one line why there is none") {
  Workbench bench;
  ProgramEnd end = run_with(bench, QLORA_TEST_PLUGIN, "", {"doctor"});
  CHECK(end.code == 0);
  CHECK_THAT(end.out,
             Contains("a driver for CUDA 13.0 (580.65) is needed, one for CUDA 13.1 (581.2) was found") &&
                 Contains("Test GPU, compute capability 8.6, 5632 of 6144 MiB free") &&
                 Contains("Old GPU, compute capability 7.5: compute capability 8.0 or more is needed") &&
                 Contains("CUDA_VISIBLE_DEVICES"));
  end = run_with(bench, QLORA_TEST_PLUGIN, "", {"doctor", "--json"});
  const Json cuda = parse_json(end.out, "stdout")["cuda"];
  CHECK((cuda["gpus"].size() == 2 && cuda["trouble"] == "" && cuda["gpus"][0]["free"] == 5632ULL << 20));
  CHECK(cuda["libraries"] == "no cuBLAS (of a test)");

  bench.write("text.so", "no library");
  const std::vector<std::array<std::string, 3>> none = {
      {QLORA_TEST_PLUGIN, "0",
       "no device; a driver for CUDA 13.0 (580.65) or later is needed, one for CUDA 13.1 (581.2) was found"},
      {QLORA_TEST_PLUGIN, "old", "Old GPU, compute capability 7.5: compute capability 8.0 or more is needed"},
      {QLORA_TEST_PLUGIN, "other", "of another build (interface 0123456789abcdef, the program's is"},
      {"nowhere/libqlora_cuda.so", "", "is not there (built where nvcc is found"},
      {"./text.so", "", "the plug-in does not load"}};
  for (const auto& [plugin, gpus, reason] : none) {
    end = run_with(bench, plugin, gpus, {"doctor"});
    INFO(plugin << " " << gpus << "\n" << end.out);
    CHECK(end.code == 0);
    CHECK_THAT(lines_with(end.out, "  cuda ").at(0), Contains("no") && Contains(reason));
    if (gpus != "old") CHECK_THAT(lines_with(end.out, "gpus ").at(0), Contains("none: ") && Contains(reason));
    end = run_with(bench, plugin, gpus,
                   {"model", "plan", "model/config.json", "--tokens", "30", "--backend", "cuda"});
    CHECK(end.code == 0);
    CHECK(lines_with(end.out, "410.0 MiB   assumed").size() == 1);
    CHECK_THAT(lines_with(end.out, "no GPU to measure").at(0), Contains(reason));
    CHECK_THAT(lines_with(end.out, "kernels' own").at(0), Contains("products of many rows through cuBLAS"));
  }
}

TEST_CASE("a sweep without a GPU says why in one line, and a named GPU that is not there is refused") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  bench.write("text.so", "no library");
  ::unsetenv("QLORA_BACKEND");
  for (const auto& [plugin, reason] :
       {std::pair<std::string, std::string>{"nowhere/libqlora_cuda.so", "is not there"},
        {"./text.so", "does not load"}}) {
    const std::vector<std::string> run = {"sweep", "run", "s.yaml", "--set", "max_steps=1"};
    ProgramEnd end = run_with(bench, plugin, "", run);
    INFO(end.err);
    CHECK(end.code == 0);
    REQUIRE(lines_with(end.err, "computes on the processor").size() == 1);
    CHECK_THAT(lines_with(end.err, "computes on the processor")[0], Contains(reason));
    std::filesystem::remove(bench.path() / "results.db");
    std::filesystem::remove_all(bench.path() / "out");
    std::vector<std::string> named = run;
    named.insert(named.end(), {"--backend", "cuda"});
    end = run_with(bench, plugin, "", named);
    CHECK(end.code == 2);
    CHECK_THAT(end.err, Contains("backend `cuda` is not available: ") && Contains(reason));
  }
  // A GPU that is there waits to be named.
  ProgramEnd end = run_with(bench, QLORA_TEST_PLUGIN, "", {"sweep", "run", "s.yaml", "--dry-run"});
  CHECK(lines_with(end.out, "the GPU (Test GPU) is used when it is named").size() == 1);
}

TEST_CASE("what a GPU's driver takes for a program is measured and planned for") {
  Workbench bench;
  bench.write_sweep("s.yaml");
  ProgramEnd end = run_with(bench, QLORA_TEST_PLUGIN, "",
                            {"model", "plan", "model/config.json", "--tokens", "30", "--backend", "cuda"});
  CHECK(end.code == 0);
  CHECK_THAT(end.out, Contains("300.0 MiB   measured") &&
                          Contains("products of many rows by our own tiles, slower: without cuBLAS"));
  const std::vector<std::string> dry = {"sweep",     "run",  "s.yaml", "--dry-run",
                                        "--backend", "cuda", "--set",  "compute_dtype=bf16"};
  end = run_with(bench, QLORA_TEST_PLUGIN, "", dry);
  INFO(end.err);
  CHECK(end.code == 0);
  CHECK_THAT(end.out, Contains("CUDA context: 300 MiB, measured") && Contains("memory of the GPU: ") &&
                          Contains("5351 MiB may be used") &&  // 95% of what is free
                          Contains("products of many rows: by our own tiles, slower: without cuBLAS"));
  // The context is a part of what is used: so much and no more.
  std::vector<std::string> small = dry;
  small.insert(small.end(), {"--memory", "300M"});
  end = run_with(bench, QLORA_TEST_PLUGIN, "", small);
  CHECK(end.code == 4);
  CHECK_THAT(end.err, Contains("300 MiB may be used"));
}
