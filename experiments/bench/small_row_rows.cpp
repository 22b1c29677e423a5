// small_row: the exact class of products with few rows, against what the machine can read and multiply.

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/operands.h"
#include "experiments/bench/peak_share.h"

namespace qlora::bench {
namespace {

struct Size {
  int64_t out, in;
};
constexpr Size kSizes[] = {{2048, 2048}, {4096, 4096}, {11008, 4096}};

// One row of codes waits for memory, more of them for multiplication.
std::vector<Row> measure(Bench& bench, const std::string& name, std::shared_ptr<Weights> weights,
                         int64_t rows, int threads) {
  const Operands operands = weights->operands();
  Products products(bench, weights, rows, true);
  const bool reads = rows == 1;
  const std::string unit = reads ? "GB/s" : "GFLOP/s";
  if (std::string wrong = products.check(); !wrong.empty())
    return {missing_row(name, unit, threads, "WRONG, not timed: " + wrong)};
  const std::vector<double> seconds = time_of([&] { products.run(); }, bench.kernel_effort());
  const Peaks& peaks = bench.peaks(threads);
  const double work =
      reads ? weights->bytes() : 2.0 * static_cast<double>(rows * weights->out() * weights->in());
  Row row = single_row(name, unit, work * 1e-9, seconds, threads);
  if (!reads) return shares_of_peak(std::move(row), peaks, operands, 0.45);
  row.against = "read bandwidth of this run";
  row.peer = peaks.read * 1e-9;
  row.ratio = *row.ours / *row.peer;
  row.goal = 0.60;
  add_note(row, note_of(operands));
  return {row};
}

}  // namespace

void small_row_rows(Bench& bench) {
  if (!bench.wants_any("small_row")) return;
  std::vector<std::shared_ptr<Weights>> weights(std::size(kSizes));
  for (int threads : bench.thread_counts()) {
    set_thread_count(threads);
    for (int64_t rows : {1, 4, 8, 16})
      for (size_t i = 0; i < std::size(kSizes); ++i) {
        const auto [out, in] = kSizes[i];
        if (bench.options().quick && out > 2048) continue;
        const std::string name = fmt::format("small_row/m{}/{}x{}/t{}", rows, out, in, threads);
        if (!bench.wants_any(name)) continue;
        if (!weights[i])
          weights[i] = std::make_shared<Weights>(bench, Format::nf4, bf16_operands(bench), out, in);
        for (Row& row : measure(bench, name, weights[i], rows, threads))
          if (bench.wants(row.name)) bench.emit(std::move(row));
      }
  }
  set_thread_count(bench.most_threads());
}

}  // namespace qlora::bench
