#include "experiments/compute_dtype.h"

#include <algorithm>
#include <set>

#include "kernels/cpu/isa.h"

namespace qlora {
namespace {

bool is_auto(const SweepRun& run) {
  auto given = run.settings.find("compute_dtype");
  return given == run.settings.end() || std::get<std::string>(given->second.value) == "auto";
}

RunConfig in_other_type(const RunConfig& config) {
  const char* other = config.text("compute_dtype") == "f32" ? "bf16" : "f32";
  return config.with("compute_dtype", std::string(other));
}

Sweep in_other_type(Sweep sweep) {
  for (SweepRun& run : sweep.runs)
    if (is_auto(run)) run.config = in_other_type(run.config);
  return sweep;
}

// Whether the store knows this sweep's automatic runs only in the type that is not this machine's.
bool declared_in_other_type(const Store& store, const Sweep& sweep, const std::vector<PlannedRun>& runs) {
  const std::vector<std::string> names = store.sweep_names();
  if (std::find(names.begin(), names.end(), sweep.name) == names.end()) return false;
  std::set<Digest> stored;
  for (const RunInfo& run : store.sweep_status(sweep.name).runs) stored.insert(run.key);
  bool other = false;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (!is_auto(sweep.runs[i])) continue;
    if (stored.contains(runs[i].key)) return false;
    other = other || stored.contains(run_key(in_other_type(runs[i].config), runs[i].content));
  }
  return other;
}

}  // namespace

std::string settle_compute_dtype(Planner& planner, const Sweep& sweep, const Store* store,
                                 std::vector<PlannedRun>& runs) {
  const bool other = store != nullptr && declared_in_other_type(*store, sweep, runs);
  if (other) runs = planner.plan(in_other_type(sweep));
  if (!is_auto(sweep.runs.at(0))) return "";
  if (other) return "auto: as this sweep was first declared";
  return cpu_has_avx512_bf16() ? "auto: this processor has AVX512-BF16"
                               : "auto: this processor has no AVX512-BF16";
}

}  // namespace qlora
