// step, ragged and memory: one QLoRA step of SmolLM2-135M against the same step by PEFT + bitsandbytes. Steps
// run in processes of their own, so that their memory is theirs.

#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/step_lab.h"

namespace qlora::bench {
namespace {

constexpr double kMiB = 1 << 20;
constexpr const char* kPeer = "PEFT + bitsandbytes (scripts/bench.sh --with-hf)";

struct StepGoal {
  const char* name;
  bool ragged, checkpointing;
  double goal;
};
// One measurement serves all rows that differ only in the peer.
constexpr StepGoal kGoals[] = {
    {"step/checkpointing/installed", false, true, 2.5},
    {"step/checkpointing/tuned", false, true, 2.0},
    {"step/none/installed", false, false, 3.5},
    {"step/none/tuned", false, false, 2.0},
    {"step/none/dense-tuned", false, false, 1.8},
    {"ragged/none/installed", true, false, 5.5},
    {"ragged/none/tuned", true, false, 3.0},
    {"ragged/checkpointing/installed", true, true, 3.5},
    {"ragged/checkpointing/tuned", true, true, 3.2},
};

class StepFamily {
 public:
  explicit StepFamily(Bench& bench) : bench_(bench) {}

  void step_rows() {
    for (const StepGoal& goal : kGoals) {
      if (!bench_.wants(goal.name)) continue;
      Row row = step_row(goal);
      row.goal = goal.goal;
      row.against = kPeer;
      bench_.emit(std::move(row));
    }
  }

  void memory_rows() {
    const StepSpec spec = spec_of(false, true);
    if (bench_.wants("memory/peer")) {
      Row row = memory_row("memory/peer", spec);
      row.goal = 0.22;
      row.against = kPeer;
      bench_.emit(std::move(row));
    }
    if (bench_.wants("memory/plan")) {
      Row row = memory_row("memory/plan", spec);
      row.goal = 1.10;
      if (row.ours) {
        row.peer = result(spec).planned_bytes / kMiB;
        row.ratio = *row.ours / *row.peer;
        row.against = "what the plan says before the start";
      }
      bench_.emit(std::move(row));
    }
  }

 private:
  StepSpec spec_of(bool ragged, bool checkpointing) const {
    StepSpec spec;
    spec.checkpointing = checkpointing;
    if (ragged) spec.batch = 16, spec.length = 0;
    spec.steps = bench_.options().quick ? 1 : 2;
    return spec;
  }

  const StepResult& result(const StepSpec& spec) {
    auto [it, fresh] = results_.try_emplace(to_text(spec));
    if (fresh) it->second = measure_in_child(bench_, bench_.most_threads(), spec);
    return it->second;
  }

  // What the peers' file measured of ours in turn with the peer is not measured again.
  bool measured_in_turn(const std::string& name) const {
    const PeerValues* values = bench_.peer(name);
    return values != nullptr && !values->ours.empty();
  }

  Row step_row(const StepGoal& goal) {
    Row row =
        missing_row(goal.name, "tokens/s", bench_.most_threads(), missing_model(bench_.options().model));
    if (!row.note.empty() || measured_in_turn(goal.name)) return row;
    const StepResult& r = result(spec_of(goal.ragged, goal.checkpointing));
    row.ours = r.tokens_per_second();
    row.spread = spread(r.seconds);
    bench_.outcome(goal.name, {{"losses", r.losses}});
    return row;
  }

  Row memory_row(const std::string& name, const StepSpec& spec) {
    Row row = missing_row(name, "MiB", bench_.most_threads(), missing_model(bench_.options().model));
    row.lower_is_better = true;
    if (!row.note.empty()) return row;
    row.ours = result(spec).peak_bytes / kMiB;
    bench_.outcome(name, {{"losses", result(spec).losses}});
    return row;
  }

  Bench& bench_;
  std::map<std::string, StepResult> results_;
};

}  // namespace

void step_rows(Bench& bench) {
  StepFamily family(bench);
  family.step_rows();
  family.memory_rows();
}

}  // namespace qlora::bench
