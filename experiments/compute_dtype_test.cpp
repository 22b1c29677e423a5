#include "experiments/compute_dtype.h"

#include <catch2/catch.hpp>

#include "experiments/place.h"
#include "experiments/scheduler.h"
#include "experiments/test_program.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

// A sweep of two runs with a store of its own.
struct Lab {
  Workbench bench;
  Store store = Store::open((bench.path() / "results.db").string());

  Sweep sweep(const std::string& more = "") const {
    bench.write_sweep("s.yaml", more);
    return read_sweep(bench.path() / "s.yaml",
                      {"model_name_or_path=" + (bench.path() / "model").string(),
                       "dataset=" + (bench.path() / "alpaca.json").string(), "lora_r=[2, 4]"});
  }
  // As a machine would whose `auto` is this type, with the first `runs` of the sweep.
  void declare(const Sweep& sweep, std::initializer_list<const char*> types, size_t runs = 2) {
    std::vector<RunRow> rows;
    for (const char* type : types) {
      Sweep there = sweep;
      for (SweepRun& run : there.runs) run.config = run.config.with("compute_dtype", std::string(type));
      Planner planner;
      const std::vector<PlannedRun> planned = planner.plan(there);
      for (size_t i = 0; i < runs; ++i)
        rows.push_back({planned[i].key, planned[i].name, planned[i].config.to_json().dump()});
    }
    store.declare_sweep(sweep.name, "", rows);
  }
  struct Settled {
    std::vector<std::string> types;
    std::string why;
  };
  Settled settle(const Sweep& sweep, const PlannedDevice& device = {}) {
    Planner planner(device);
    std::vector<PlannedRun> runs;
    Settled settled;
    settled.why = settle_compute_dtype(planner, sweep, &store, runs);
    for (const PlannedRun& run : runs) settled.types.push_back(run.config.text("compute_dtype"));
    return settled;
  }
};

using Types = std::vector<std::string>;
const PlannedDevice kGpu{CountedKernels::cuda};

}  // namespace

TEST_CASE("a sweep that is declared anew takes the type that is fastest where it computes") {
  Lab lab;
  const std::string best = best_compute_dtype();
  Lab::Settled here = lab.settle(lab.sweep());
  CHECK(here.types == Types{best, best});
  CHECK_THAT(here.why, Contains(best == "bf16_amx" ? "auto: this processor has AMX" : "AVX512-BF16"));
  Lab::Settled gpu = lab.settle(lab.sweep(), kGpu);
  CHECK(gpu.types == Types{"bf16", "bf16"});
  CHECK_THAT(gpu.why, Contains("a GPU"));
  CHECK(declared_anew(lab.sweep(), kGpu).runs[1].config.text("compute_dtype") == "bf16");
  for (Operands operands : kAllOperands) {
    const std::string type = name_of(operands);
    Lab::Settled given = lab.settle(lab.sweep("compute_dtype: " + type + "\n"), kGpu);
    CHECK(given.types == Types{type, type});
    CHECK(given.why.empty());
  }
}

TEST_CASE("a sweep goes on in the type that it was declared in, whatever the processor or GPU would choose") {
  for (Operands operands : kAllOperands) {
    const char* type = name_of(operands);
    INFO(type);
    Lab lab;
    const Sweep sweep = lab.sweep();
    lab.declare(sweep, {type}, 1);  // one of its runs: the other is new
    for (const PlannedDevice& device : {PlannedDevice{}, kGpu}) {
      const Lab::Settled settled = lab.settle(sweep, device);
      CHECK(settled.types == Types{type, type});
      const bool best = type == best_compute_dtype(device.kernels == CountedKernels::cuda);
      CHECK((settled.why == "auto: as this sweep was first declared") == !best);
    }
    // Its files are those of the runs that are stored, so that a run that was stopped elsewhere goes on.
    Planner planner;
    const WorkPlan plan = plan_work(planner, sweep, &lab.store, size_t{1} << 40);
    CHECK(lab.store.find_run(plan.runs[0].key));
    for (size_t i = 0; i < plan.runs.size(); ++i)
      CHECK_THAT(plan.folders[i].string(), Contains(hex(plan.runs[i].key).substr(0, 8)));
  }
}

TEST_CASE("of several stored types a sweep takes the one of the place where it goes on") {
  Lab lab;
  lab.declare(lab.sweep(), {"f32", "bf16", "bf16_amx"});
  CHECK(lab.settle(lab.sweep(), kGpu).types == Types{"bf16", "bf16"});
  const std::string best = best_compute_dtype();
  CHECK(lab.settle(lab.sweep()).types == Types{best, best});
}

TEST_CASE("runs whose type is given say nothing about those that have none") {
  Lab lab;
  const Sweep given = lab.sweep("compute_dtype: f32\n");
  Sweep mixed = lab.sweep();
  mixed.runs[0] = given.runs[0];
  lab.declare(given, {"f32"}, 1);
  CHECK(lab.settle(mixed, kGpu).types == Types{"f32", "bf16"});
  lab.declare(given, {"f32"});
  CHECK(lab.settle(mixed, kGpu).types == Types{"f32", "f32"});
}

TEST_CASE("a backend is a GPU's by its name or the environment's") {
  const char* before = std::getenv("QLORA_BACKEND");
  const std::string restored = before != nullptr ? before : "";
  ::unsetenv("QLORA_BACKEND");
  CHECK(names_gpu("cuda"));
  CHECK(names_gpu("cuda-emulated"));
  CHECK_FALSE(names_gpu("auto"));
  ::setenv("QLORA_BACKEND", "cuda", 1);
  CHECK(names_gpu("auto"));
  CHECK_FALSE(names_gpu("avx2"));
  ::setenv("QLORA_BACKEND", restored.c_str(), 1);
  if (before == nullptr) ::unsetenv("QLORA_BACKEND");
}
