// small_row: the exact class of products with few rows, against what the machine can read and multiply.

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/operands.h"

namespace qlora::bench {
namespace {

struct Size {
  int64_t out, in;
};
constexpr Size kSizes[] = {{2048, 2048}, {4096, 4096}, {11008, 4096}};

Row small_row(Bench& bench, const std::string& name, Size size, int64_t rows, int threads) {
  const Operands operands = bf16_operands(bench);
  Products products(bench, Format::nf4, operands, size.out, size.in, rows, true);
  if (std::string wrong = products.check(); !wrong.empty())
    return missing_row(name, "GB/s", threads, "WRONG, not timed: " + wrong);
  const std::vector<double> seconds = time_of([&] { products.run(); }, bench.kernel_effort());
  const Peaks& peaks = bench.peaks(threads);
  const bool reads = rows == 1;
  const double work = reads ? products.weight_bytes() : 2.0 * static_cast<double>(rows * size.out * size.in);
  Row row = single_row(name, reads ? "GB/s" : "GFLOP/s", work * 1e-9, seconds, threads);
  const double peak = reads ? peaks.read : peak_of(peaks, operands);
  row.against = reads ? "read bandwidth of this run" : name_of_peak(peaks, operands);
  row.goal = reads ? 0.60 : 0.45;
  add_note(row, note_of(operands));
  if (!reads && !is_bf16(operands))
    row.note = "the goal is stated for bf16, which is not on this processor or backend";
  if (peak > 0) {
    row.peer = peak * 1e-9;
    row.ratio = *row.ours / *row.peer;
  }
  return row;
}

}  // namespace

void small_row_rows(Bench& bench) {
  if (!bench.wants_any("small_row")) return;
  for (int threads : bench.thread_counts()) {
    set_thread_count(threads);
    for (int64_t rows : {1, 4, 8, 16})
      for (const Size& size : kSizes) {
        if (bench.options().quick && size.out > 2048) continue;
        const std::string name = fmt::format("small_row/m{}/{}x{}/t{}", rows, size.out, size.in, threads);
        if (bench.wants(name)) bench.emit(small_row(bench, name, size, rows, threads));
      }
  }
  set_thread_count(bench.most_threads());
}

}  // namespace qlora::bench
