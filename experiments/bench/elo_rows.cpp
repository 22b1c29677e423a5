// elo: 10,000 orders of the published tournament's 4,467 matches, against a limit in seconds.

#include <cmath>

#include "core/base/parallel.h"
#include "eval/ratings/presets.h"
#include "experiments/bench/bench.h"

namespace qlora::bench {
namespace {

constexpr double kLimit = 0.4;  // seconds, on two threads

Row elo_row(const std::string& name, int threads, const Effort& effort) {
  set_thread_count(threads);
  const Preset& published = preset("qlora-vicuna-gpt4");
  const EloReport once = compute_preset(published, EloOptions{});
  if (once.matches != 4467 || std::abs(once.ratings.front().rating - 1347.98) > 0.4)
    return missing_row(name, "s", threads, "WRONG, not timed: GPT-4 is not at 1348");
  const std::vector<double> seconds = time_of([&] { compute_preset(published, EloOptions{}); }, effort);
  Row row;
  row.name = name;
  row.unit = "s";
  row.ours = median(seconds);
  row.spread = spread(seconds);
  row.threads = threads;
  row.lower_is_better = true;
  if (threads != 2) {
    row.note = "reported; the limit is for two threads";
    return row;
  }
  row.peer = kLimit;
  row.ratio = *row.ours / kLimit;
  row.goal = 1;
  row.against = "the limit of 0.4 s";
  return row;
}

}  // namespace

void elo_rows(Bench& bench) {
  for (int threads : bench.thread_counts()) {
    const std::string name = "elo/10000x4467/t" + std::to_string(threads);
    if (bench.wants(name)) bench.emit(elo_row(name, threads, bench.kernel_effort()));
  }
  set_thread_count(bench.most_threads());
}

}  // namespace qlora::bench
