// packed, threads and useful_flops: this program against itself and against the machine. All that is compared
// runs in one process, step by step in turn.

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/operands.h"
#include "experiments/bench/peak_share.h"
#include "experiments/bench/step_lab.h"

namespace qlora::bench {
namespace {

constexpr int64_t kRuns = 8, kRank = 8;
constexpr double kMiB = 1 << 20;
// Forward, dx and LoRA of SmolLM2-135M at r = 16, head included, without recomputation.
constexpr double kUsefulFlopsPerToken = 567e6;

// Eight runs together, one run of the same tokens, and the eight one after another.
void packed_speed(Bench& bench, StepLab& lab, int64_t length, double goal) {
  StepSpec packed{.runs = kRuns, .batch = 1, .length = length, .rank = kRank};
  StepSpec alone{.runs = 1, .batch = kRuns, .length = length, .rank = kRank};
  StepSpec small{.runs = 1, .batch = 1, .length = length, .rank = kRank};
  auto eight = lab.pack(packed), one = lab.pack(alone);
  std::vector<std::unique_ptr<TrainPack>> each;
  for (int64_t i = 0; i < kRuns; ++i) each.push_back(lab.pack(small));
  auto seconds = time_in_turn({[&] { lab.step(*eight); }, [&] { lab.step(*one); },
                               [&] {
                                 for (auto& pack : each) lab.step(*pack);
                               }},
                              bench.step_effort(), 0);
  const auto tokens = static_cast<double>(kRuns * length);
  const std::string name = fmt::format("packed/{}", length);
  Row row = paired_row(name + "/one-run", "tokens/s", tokens, {seconds[0], seconds[1]}, bench.most_threads());
  row.goal = goal;
  row.against = fmt::format("one run at {} x {}", kRuns, length);
  bench.emit(std::move(row));
  row = paired_row(name + "/one-after-another", "tokens/s", tokens, {seconds[0], seconds[2]},
                   bench.most_threads());
  row.goal = 1;
  row.against = fmt::format("{} runs of 1 x {}, one after another", kRuns, length);
  bench.emit(std::move(row));
}

void packed_memory(Bench& bench, int64_t length, bool checkpointing) {
  const std::string name = fmt::format("packed/memory/{}{}", length, checkpointing ? "/checkpointing" : "");
  if (!bench.wants(name)) return;
  StepSpec packed{.runs = kRuns, .batch = 1, .length = length, .rank = kRank, .steps = 1};
  packed.checkpointing = checkpointing;
  StepSpec small = packed;
  small.runs = 1;
  Row row = missing_row(name, "MiB", bench.most_threads(), "");
  row.lower_is_better = true;
  row.ours = measure_in_child(bench, bench.most_threads(), packed).peak_bytes / kMiB;
  row.peer =
      static_cast<double>(kRuns) * measure_in_child(bench, bench.most_threads(), small).peak_bytes / kMiB;
  row.ratio = *row.ours / *row.peer;
  row.goal = 0.40;
  row.against = fmt::format("8 processes of one run each, 1 x {}{} (one measured, times 8)", length,
                            checkpointing ? ", block checkpointing on both sides" : "");
  bench.emit(std::move(row));
}

}  // namespace

void packed_rows(Bench& bench) {
  if (!bench.wants_any("packed")) return;
  if (std::string why = missing_model(bench.options().model); !why.empty()) {
    bench.emit(missing_row("packed", "tokens/s", bench.most_threads(), why));
    return;
  }
  {
    StepLab lab(bench.options().model, bench.backend());
    if (bench.wants_any("packed/32")) packed_speed(bench, lab, 32, 0.85);
    if (bench.wants_any("packed/256")) packed_speed(bench, lab, 256, 0.95);
  }
  for (int64_t length : {32, 256})
    for (bool checkpointing : {false, true}) packed_memory(bench, length, checkpointing);
}

void scaling_rows(Bench& bench) {
  if (!bench.wants_any("threads") && !bench.wants_any("useful_flops")) return;
  if (std::string why = missing_model(bench.options().model); !why.empty()) {
    bench.emit(missing_row("threads/step", "tokens/s", bench.most_threads(), why));
    bench.emit(missing_row("useful_flops/step", "GFLOP/s", bench.most_threads(), why));
    return;
  }
  const int most = bench.most_threads();
  StepLab lab(bench.options().model, bench.backend());
  auto pack = lab.pack({});
  int64_t tokens = 0;
  auto with = [&](int threads) {
    return [&, threads] {
      set_thread_count(threads);
      tokens = lab.step(*pack);
    };
  };
  std::vector<std::function<void()>> things = {with(most)};
  if (most > 1) things.push_back(with(1));
  const auto seconds = time_in_turn(things, bench.step_effort(), 0, now_seconds);
  set_thread_count(most);
  const auto work = static_cast<double>(tokens);
  if (bench.wants("threads/step")) {
    Row row = most > 1 ? paired_row("threads/step", "tokens/s", work, seconds, most)
                       : missing_row("threads/step", "tokens/s", 1, "one thread only: nothing to compare");
    row.against = most > 1 ? "one thread" : "";
    row.goal = 1.8;
    bench.emit(std::move(row));
  }
  const double gflop = kUsefulFlopsPerToken * work * 1e-9;
  for (Row& row : shares_of_peak(single_row("useful_flops/step", "GFLOP/s", gflop, seconds[0], most),
                                 bench.peaks(most), bf16_operands(bench), 0.58))
    if (bench.wants(row.name)) bench.emit(std::move(row));
}

}  // namespace qlora::bench
