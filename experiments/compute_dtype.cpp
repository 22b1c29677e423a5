#include "experiments/compute_dtype.h"

#include <algorithm>
#include <set>

namespace qlora {
namespace {

bool is_auto(const SweepRun& run) {
  auto given = run.settings.find("compute_dtype");
  return given == run.settings.end() || std::get<std::string>(given->second.value) == "auto";
}

Sweep in_type(Sweep sweep, const std::string& type) {
  for (SweepRun& run : sweep.runs)
    if (is_auto(run)) run.config = run.config.with("compute_dtype", type);
  return sweep;
}

bool on_gpu(const PlannedDevice& device) {
  return device.kernels == CountedKernels::cuda;
}

// The sweep's runs in the store, without those whose type is given in the file.
std::set<Digest> stored_runs(const Store& store, const Sweep& sweep, const std::vector<PlannedRun>& runs) {
  std::set<Digest> stored;
  const std::vector<std::string> names = store.sweep_names();
  if (std::find(names.begin(), names.end(), sweep.name) == names.end()) return stored;
  for (const RunInfo& run : store.sweep_status(sweep.name).runs) stored.insert(run.key);
  for (size_t i = 0; i < runs.size(); ++i)
    if (!is_auto(sweep.runs[i])) stored.erase(runs[i].key);
  return stored;
}

// The type in which the store has automatic runs, `ours` if it has any in that; empty: it has none.
std::string stored_type(const Store& store, const Sweep& sweep, const std::vector<PlannedRun>& runs,
                        const std::string& ours) {
  const std::set<Digest> stored = stored_runs(store, sweep, runs);
  std::vector<std::string> types = {ours};
  for (Operands operands : kAllOperands) types.emplace_back(name_of(operands));
  for (const std::string& type : types)
    for (size_t i = 0; i < runs.size(); ++i)
      if (is_auto(sweep.runs[i]) &&
          stored.contains(run_key(runs[i].config.with("compute_dtype", type), runs[i].content)))
        return type;
  return "";
}

}  // namespace

Sweep declared_anew(Sweep sweep, const PlannedDevice& device) {
  return in_type(std::move(sweep), best_compute_dtype(on_gpu(device)));
}

std::string settle_compute_dtype(Planner& planner, const Sweep& sweep, const Store* store,
                                 std::vector<PlannedRun>& runs) {
  const bool gpu = on_gpu(planner.device());
  const std::string best = best_compute_dtype(gpu);
  runs = planner.plan(in_type(sweep, best));
  const std::string stored = store != nullptr ? stored_type(*store, sweep, runs, best) : "";
  const bool other = !stored.empty() && stored != best;
  if (other) runs = planner.plan(in_type(sweep, stored));
  if (!is_auto(sweep.runs.at(0))) return "";
  return "auto: " + (other ? "as this sweep was first declared" : why_best_compute_dtype(gpu));
}

}  // namespace qlora
