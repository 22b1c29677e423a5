// nf4_gemm and dense_gemm: products from codes and from dense weights, both ways, against dense
// libraries.

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/half.h"
#include "core/base/parallel.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/child.h"
#include "experiments/bench/operands.h"
#include "experiments/bench/peers.h"

namespace qlora::bench {
namespace {

struct Size {
  int64_t out, in;
};
constexpr Size kSizes[] = {{576, 576},   {576, 192},   {576, 1536},  {1536, 576},  {768, 768},
                           {2048, 2048}, {2048, 5632}, {4096, 4096}, {4096, 11008}};
constexpr int64_t kRows[] = {256, 1024, 2048};
// Between two things, in which the threads of the one just timed may stop spinning; and what each does before
// the next one's turn, as products follow each other in a step: threads that sleep take a while to wake.
constexpr double kPause = 0.005, kTurn = 0.01;
// Calls that take so long, at some 200 GFLOP/s.
int calls_of(double gflop, int threads) {
  return threads == 1 ? 1 : static_cast<int>(std::clamp(kTurn * 200 / gflop, 1.0, 100.0));
}

// One column of the table of goals: a kind of product, and what its ratio should be.
struct Measure {
  std::string name;  // "nf4_gemm/bf16"
  Format format = Format::dense;
  bool bf16 = false;
  double cell_forward = 0, cell_backward = 0, mean_forward = 0, mean_backward = 0;
};

class GemmFamily {
 public:
  explicit GemmFamily(Bench& bench)
      : bench_(bench), avx2_(bench.backend().name() == "avx2"), peers_(gemm_peers(avx2_)) {}

  void measure(const Measure& m) {
    if (!bench_.wants_any(m.name)) return;
    if (m.bf16 && operands_of(m) == Operands::as_stored) {
      for (const char* direction : {"forward", "backward"})
        bench_.emit(missing_row(m.name + "/" + direction, "GFLOP/s", bench_.most_threads(),
                                "not on this processor: needs AVX512-BF16"));
      return;
    }
    Ratios ratios;
    for (const Size& size : kSizes) measure_size(m, size, ratios);
    set_thread_count(bench_.most_threads());
    for (const auto& [of, logs] : ratios) emit_mean(m, of.second, of.first, logs);
  }

 private:
  // Logarithms of the cells' ratios, by threads and direction (backward: true).
  using Ratios = std::map<std::pair<int, bool>, std::vector<double>>;
  struct Cell {
    std::string name;
    int64_t rows;
    bool backward;
    int threads;
  };

  // bf16 as `compute_dtype: auto` has it; oneDNN takes AMX for it where it is, too.
  Operands operands_of(const Measure& m) { return m.bf16 ? bf16_operands(bench_) : Operands::as_stored; }

  static std::string prefix_of(const Measure& m, bool backward) {
    return m.name + (backward ? "/backward" : "/forward");
  }

  std::vector<Cell> cells_of(const Measure& m, const Size& size) const {
    std::vector<Cell> cells;
    for (int threads : bench_.thread_counts())
      for (bool backward : {false, true})
        for (int64_t rows : kRows) {
          if (bench_.options().quick && (rows != 256 || size.in * size.out > (5 << 20))) continue;
          const std::string prefix = prefix_of(m, backward);
          const std::string name = fmt::format("{}/{}x{}/m{}/t{}", prefix, size.out, size.in, rows, threads);
          if (bench_.wants(name) || bench_.wants(fmt::format("{}/geomean/t{}", prefix, threads)))
            cells.push_back({name, rows, backward, threads});
        }
    return cells;
  }

  void measure_size(const Measure& m, const Size& size, Ratios& ratios) {
    const std::vector<Cell> cells = cells_of(m, size);
    if (cells.empty()) return;
    const auto ours = std::make_shared<Weights>(bench_, m.format, operands_of(m), size.out, size.in);
    std::shared_ptr<const DenseWeights> theirs;
    if (!peers_.empty())
      theirs = std::make_shared<DenseWeights>(m.bf16 ? DType::bf16 : DType::f32, size.out, size.in);
    for (const Cell& cell : cells) {
      set_thread_count(cell.threads);
      set_peer_threads(cell.threads);
      Row row = measure_cell(m, cell, ours, theirs);
      row.goal = cell.backward ? m.cell_backward : m.cell_forward;
      if (row.ratio) ratios[{cell.threads, cell.backward}].push_back(std::log(*row.ratio));
      bench_.emit(std::move(row));
    }
  }

  void emit_mean(const Measure& m, bool backward, int threads, const std::vector<double>& logs) {
    Row mean;
    mean.name = fmt::format("{}/geomean/t{}", prefix_of(m, backward), threads);
    mean.unit = "GFLOP/s";
    double sum = 0;
    for (double value : logs) sum += value;
    mean.ratio = std::exp(sum / static_cast<double>(logs.size()));
    mean.goal = backward ? m.mean_backward : m.mean_forward;
    mean.threads = threads;
    mean.against = "the peers of its cells";
    mean.note = fmt::format("geometric mean of {} cells", logs.size());
    add_note(mean, note_of(operands_of(m)));
    bench_.emit(std::move(mean));
  }

  // Ours and every peer that can, in turn; the ratio is to the fastest of them.
  Row measure_cell(const Measure& m, const Cell& cell, const std::shared_ptr<Weights>& weights,
                   const std::shared_ptr<const DenseWeights>& dense_weights) {
    Products ours(bench_, weights, cell.rows, !cell.backward);
    if (std::string wrong = ours.check(); !wrong.empty())
      return missing_row(cell.name, "GFLOP/s", cell.threads, "WRONG, not timed: " + wrong);
    std::vector<std::function<void()>> things = {[&] { ours.run(); }};
    std::optional<DenseOperands> dense;
    std::vector<std::string> names;
    for (const auto& peer : peers_) {
      if (!peer->can(dense_weights->type)) continue;
      // The goals of the AVX2 kernels are stated against oneDNN.
      if (m.name.find("avx2") != std::string::npos && peer->name().find("oneDNN") == std::string::npos)
        continue;
      if (!dense) dense.emplace(dense_weights, cell.rows, !cell.backward);
      things.push_back(peer->prepare(dense->product()));
      names.push_back(peer->name());
    }
    const double gflop = 2e-9 * static_cast<double>(cell.rows * weights->out() * weights->in());
    const int calls = calls_of(gflop, cell.threads);
    for (auto& thing : things)
      thing = [once = std::move(thing), calls] {
        for (int i = 0; i < calls; ++i) once();
      };
    auto seconds = time_in_turn(things, bench_.kernel_effort(), cell.threads > 1 ? kPause : 0);
    for (auto& of_thing : seconds)
      for (double& s : of_thing) s /= calls;
    size_t best = 1;
    for (size_t i = 2; i < seconds.size(); ++i)
      if (median(seconds[i]) < median(seconds[best])) best = i;
    Row row = names.empty()
                  ? single_row(cell.name, "GFLOP/s", gflop, seconds[0], cell.threads)
                  : paired_row(cell.name, "GFLOP/s", gflop, {seconds[0], seconds[best]}, cell.threads);
    if (names.empty())
      row.note = absent_peers();
    else
      row.against = names[best - 1];
    add_note(row, note_of(weights->operands()));
    return row;
  }

  Bench& bench_;
  bool avx2_;
  std::vector<std::unique_ptr<GemmPeer>> peers_;
};

// Libraries can be held to AVX2 only from the start of a process.
void forced_avx2_rows(Bench& bench) {
  std::vector<std::string> rows;
  for (const char* name : {"nf4_gemm/avx2-f32", "dense_gemm/avx2-f32"})
    if (bench.wants_any(name)) rows.push_back(name);
  if (rows.empty()) return;
  std::vector<std::string> arguments = {"bench",
                                        "--backend",
                                        "avx2",
                                        "--rows",
                                        fmt::format("{}", fmt::join(rows, ",")),
                                        "--threads",
                                        std::to_string(bench.most_threads()),
                                        "--answer"};
  if (bench.options().quick) arguments.push_back("--quick");
  ask_child(arguments, [&](const Json& json) {
    if (Row row = row_from_json(json, "the forced avx2 backend"); bench.wants(row.name)) bench.emit(row);
  });
}

}  // namespace

void gemm_rows(Bench& bench) {
  if (!bench.wants_any("nf4_gemm") && !bench.wants_any("dense_gemm")) return;
  GemmFamily family(bench);
  const bool avx2 = bench.backend().name() == "avx2";
  family.measure({"nf4_gemm/bf16", Format::nf4, true, 0.85, 0.98, 0.95, 1.05});
  if (avx2) family.measure({"nf4_gemm/avx2-f32", Format::nf4, false, 0.85, 0.85, 0.85, 0.85});
  family.measure({"dense_gemm/bf16", Format::dense, true, 0.95, 0.95, 0.95, 0.95});
  family.measure({"dense_gemm/f32", Format::dense, false, 0.95, 0.95, 0.95, 0.95});
  if (avx2) family.measure({"dense_gemm/avx2-f32", Format::dense, false, 0.90, 0.90, 0.90, 0.90});
  if (bench.backend().name() == "avx512") forced_avx2_rows(bench);
}

}  // namespace qlora::bench
