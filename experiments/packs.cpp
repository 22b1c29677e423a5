// Cuts runs into packs, and decides for each of them what its backward keeps and what it computes again.
#include <algorithm>
#include <numeric>
#include <span>

#include "experiments/plan.h"

namespace qlora {
namespace {

// The time of a step in each mode, relative to the first: measured, SmolLM2-135M, r 16 on all linears, seven
// interleaved rounds of one thread. The last, which only a GPU has, is not measured: its copies run beside
// its kernels.
constexpr double kStepTime[] = {1, 1.01, 1.29, 1.3};
// What a pass over the base costs beside its rows, in rows, since a quantized weight is decoded once a pass:
// eight runs of 32 tokens together were measured to take 1 / 1.41 of what they take one after another
// (results/bench, packed/32/one-after-another).
constexpr double kRowsOfBase = 16;
constexpr size_t kPacksShown = 8;

// What a plan needs that is not there: of what may be used, of the host's memory, or both.
std::string shortage(const MemoryPlan& m, size_t budget) {
  std::vector<std::string> needs;
  if (m.bytes() > budget) needs.push_back(format_bytes(m.bytes()));
  if (!m.host_has_room())
    needs.push_back(fmt::format("{} of the host's memory, {} are there", format_bytes(m.pinned()),
                                format_bytes(m.device.host)));
  return fmt::format("needs {}", fmt::join(needs, " and "));
}

// What to do where only the host has no room. Under `auto` all other modes were tried, on the GPU.
std::string advice(const MemoryPlan& m, const RunConfig& config, size_t budget) {
  const std::string may = format_bytes(budget);
  if (m.paged > m.device.host)
    return fmt::format("an optimizer that is not paged keeps its states on the GPU, where {} may be used",
                       may);
  if (config.text("gradient_checkpointing") == "auto")
    return fmt::format(
        "gradient_checkpointing: offload has inputs of blocks there, and every other mode needs more of the "
        "GPU than {}, which may be used",
        may);
  return fmt::format("gradient_checkpointing: block keeps inputs of blocks on the GPU, where {} may be used",
                     may);
}

// Runs of one micro-step a unit of time: more runs share a pass over the base, fewer keep more for backward.
double speed_of(std::span<const PlannedRun* const> runs, Checkpointing mode) {
  double rows = 0;
  for (const PlannedRun* run : runs)
    rows += static_cast<double>(std::accumulate(run->longest.begin(), run->longest.end(), int64_t{0}));
  return static_cast<double>(runs.size()) / (kStepTime[static_cast<size_t>(mode)] * (rows + kRowsOfBase));
}

}  // namespace

Checkpointing Planner::in_effect(Checkpointing mode) const {
  const bool on_host = device_.kernels == CountedKernels::cpu;
  return on_host && mode == Checkpointing::offload ? Checkpointing::block : mode;
}

std::vector<Checkpointing> Planner::modes_of(const RunConfig& config) const {
  if (config.text("gradient_checkpointing") != "auto") return {in_effect(checkpointing(config))};
  if (device_.kernels == CountedKernels::cpu) return {kHostCheckpointings.begin(), kHostCheckpointings.end()};
  return {std::begin(kCheckpointings), std::end(kCheckpointings)};
}

void Planner::fit(std::vector<PlannedRun>& runs, size_t budget) {
  for (PlannedRun& run : runs) run.memory = choose({&run}, budget).memory.bytes();
}

// The fastest first.
std::vector<DeviceOptions> Planner::device_choices() const {
  if (device_.kernels != CountedKernels::cuda) return {{}};
  const DeviceOptions tiles{.blas = false};
  if (!device_.blas) return {tiles};
  return {{.blas = true, .kept_bytes = device_.kept.value_or(0)}, tiles};
}

// The same with a block's decoded weights, from its recomputation to its gradients, where they fit too.
// Nothing else decodes a weight twice within a block.
MemoryPlan Planner::with_decoded(const std::vector<const PlannedRun*>& runs, Checkpointing mode,
                                 const MemoryPlan& plan, size_t budget) {
  const bool trains =
      std::any_of(runs.begin(), runs.end(), [](const PlannedRun* r) { return !r->longest.empty(); });
  if (!plan.options.blas || plan.decoded == 0 || device_.kept || !blocks_run_again(mode) || !trains)
    return plan;
  const MemoryPlan kept = memory_of(runs, mode, {.blas = true, .kept_bytes = plan.decoded});
  return kept.bytes() <= budget ? kept : plan;
}

PlannedPack Planner::choose(const std::vector<const PlannedRun*>& runs, std::optional<size_t> budget) {
  PlannedPack pack;
  std::optional<PlannedPack> without_host;
  pack.runs = runs;
  for (const DeviceOptions& options : device_choices())
    for (Checkpointing mode : modes_of(runs.at(0)->config)) {
      pack.checkpointing = mode;
      pack.memory = memory_of(runs, mode, options);
      if (!budget) return pack;
      if (!without_host && pack.memory.bytes() <= *budget) without_host = pack;
      if (!fits(pack.memory, *budget)) continue;
      pack.memory = with_decoded(runs, mode, pack.memory, *budget);
      return pack;
    }
  return without_host.value_or(pack);
}

// The most runs from the front that fit together; more runs never need less.
size_t Planner::most_that_fit(const std::vector<const PlannedRun*>& runs, Checkpointing mode,
                              const DeviceOptions& options, size_t budget) {
  size_t fit = 0, beyond = runs.size() + 1;
  for (size_t tried = runs.size(); fit + 1 < beyond; tried = (fit + beyond) / 2) {
    const std::vector<const PlannedRun*> some(runs.begin(),
                                              runs.begin() + static_cast<std::ptrdiff_t>(tried));
    (fits(memory_of(some, mode, options), budget) ? fit : beyond) = tried;
  }
  return fit;
}

void Planner::refuse(const PlannedRun& run, size_t budget) {
  const MemoryPlan least = choose({&run}, budget).memory;
  const std::string after = least.bytes() > budget ? format_bytes(budget) + " may be used (--memory)"
                                                   : advice(least, run.config, budget);
  throw Error(ErrorKind::memory, fmt::format("run `{}` {}; {}", run.name, shortage(least, budget), after));
}

PlannedPack Planner::next_pack(const std::vector<const PlannedRun*>& runs, size_t budget) {
  PlannedPack best;
  DeviceOptions chosen;
  double speed = 0;
  std::vector<std::string> tried;
  const std::vector<Checkpointing> modes = modes_of(runs[0]->config);
  for (const DeviceOptions& options : device_choices()) {
    const bool tiles_instead = device_.blas && !options.blas;
    for (Checkpointing mode : modes) {
      const size_t fit = most_that_fit(runs, mode, options, budget);
      const std::string name = name_of(mode) + std::string(tiles_instead ? " by our own tiles" : "");
      tried.push_back(fit == 0 ? name + " " + shortage(memory_of({runs[0]}, mode, options), budget)
                               : fmt::format("{} fits {} of {}", name, fit, runs.size()));
      const double with = fit == 0 ? 0 : speed_of(std::span(runs).first(fit), mode);
      if (with > speed) {
        speed = with;
        best.runs.assign(runs.begin(), runs.begin() + static_cast<std::ptrdiff_t>(fit));
        best.checkpointing = mode;
        chosen = options;
      }
      if (fit == runs.size()) break;
    }
    if (!best.runs.empty()) break;
  }
  if (best.runs.empty()) refuse(*runs[0], budget);
  if (modes.size() > 1)
    best.reason = fmt::format("{}; {} may be used", fmt::join(tried, ", "), format_bytes(budget));
  else if (name_of(best.checkpointing) != runs[0]->config.text("gradient_checkpointing"))
    best.reason = "memory of the host is where this computes";
  best.memory =
      with_decoded(best.runs, best.checkpointing, memory_of(best.runs, best.checkpointing, chosen), budget);
  return best;
}

std::vector<PlannedPack> Planner::pack(const std::vector<const PlannedRun*>& runs, size_t budget) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<const PlannedRun*>> groups;
  for (const PlannedRun* run : runs) {
    if (!groups.contains(run->pack)) order.push_back(run->pack);
    groups[run->pack].push_back(run);
  }
  std::vector<PlannedPack> packs;
  for (const std::string& name : order)
    for (std::vector<const PlannedRun*> rest = groups[name]; !rest.empty();) {
      packs.push_back(next_pack(rest, budget));
      rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(packs.back().runs.size()));
    }
  return packs;
}

std::vector<std::string> describe_choices(const std::vector<PlannedPack>& packs) {
  std::vector<std::string> lines;
  for (const PlannedPack& pack : packs) {
    if (pack.reason.empty()) continue;
    if (lines.size() == kPacksShown) {
      lines.push_back(fmt::format("... and so on: {} packs", packs.size()));
      break;
    }
    lines.push_back(fmt::format("gradient_checkpointing {}: {} for {} run{} together ({})",
                                pack.runs[0]->config.text("gradient_checkpointing"),
                                name_of(pack.checkpointing), pack.runs.size(),
                                pack.runs.size() == 1 ? "" : "s", pack.reason));
  }
  return lines;
}

}  // namespace qlora
