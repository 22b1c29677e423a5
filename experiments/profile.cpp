#include "experiments/profile.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "experiments/eval_rows.h"
#include "experiments/start_run.h"
#include "kernels/cpu/isa.h"
#include "results/table.h"

namespace qlora {
namespace {

constexpr double kGiga = 1e9;
constexpr int64_t kWarmUp = 2;  // steps: the first reads the weights for the first time

// Adds up what the runs of a pack report.
class Totals : public Observer {
 public:
  void on_step(const std::string&, const StepRecord& record) override {
    tokens += record.tokens;
    labels += record.labels;
  }
  int64_t tokens = 0, labels = 0;
};

// A kernel's share of a step, as the table and the JSON show it.
struct Row {
  std::string kernel, type;
  double calls, ms, share, gflop, gbyte, gflops, gbytes, of_peak, of_bandwidth, of_roof;
};

Row row_of(const Profile& p, const std::string& kernel, const KernelTime& time) {
  const auto steps = static_cast<double>(p.steps);
  const double seconds = std::max(time.seconds, 1e-12);
  const double peak = peak_of(p.peaks, time.operands);
  Row row;
  row.kernel = kernel;
  row.type = name_of(time.type);
  row.calls = static_cast<double>(time.calls) / steps;
  row.ms = time.seconds / steps * 1e3;
  row.share = time.seconds / p.seconds;
  row.gflop = time.flops / steps / kGiga;
  row.gbyte = time.bytes / steps / kGiga;
  row.gflops = time.flops / seconds / kGiga;
  row.gbytes = time.bytes / seconds / kGiga;
  row.of_peak = peak > 0 ? time.flops / seconds / peak : 0;
  row.of_bandwidth = p.peaks.read > 0 ? time.bytes / seconds / p.peaks.read : 0;
  row.of_roof = std::max(row.of_peak, row.of_bandwidth);
  return row;
}

std::vector<Row> rows_of(const Profile& p) {
  std::vector<Row> rows;
  KernelTime outside{.calls = p.steps, .seconds = p.seconds, .type = DType::u8};
  for (const auto& [kernel, time] : p.kernels) {
    rows.push_back(row_of(p, kernel, time));
    outside.seconds -= time.seconds;
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.ms > b.ms; });
  rows.push_back(row_of(p, "(outside: tape, data)", outside));
  return rows;
}

std::string percent(double part) {
  return fmt::format("{:>5.1f}%", 100 * part);
}
std::string ratio(double value) {
  return value > 0 ? fmt::format("{:>7.2f}", value) : "";
}

}  // namespace

std::string bf16_peaks_text(const Peaks& p) {
  if (p.bf16 == 0) return "bf16 products not on this processor or backend";
  std::string out = fmt::format("{:.0f} GFLOP/s bf16", p.bf16 / kGiga);
  if (p.amx > 0) out += fmt::format(", {:.0f} GFLOP/s bf16_amx", p.amx / kGiga);
  return out;
}

double load_average() {
  double load = 0;
  return ::getloadavg(&load, 1) == 1 ? load : -1;
}

Profile profile_sweep(const Sweep& sweep, const ProfileOptions& options) {
  QLORA_CHECK(options.steps >= 1, usage, "--steps must be at least 1, found {}", options.steps);
  if (options.threads > 0) set_thread_count(options.threads);
  const Place place = place_of(options.backend, options.memory);
  FirstPlan plan = plan_first(sweep, place);
  std::unique_ptr<Backend> inner = make_backend(place.backend, plan.memory.options);
  Profile p;
  p.backend = inner->name();
  p.threads = thread_count();
  TimedBackend backend(std::move(inner), options.by_shape);
  const auto room = static_cast<int64_t>(plan.memory.passing);
  FirstPack first(std::move(plan), backend, kWarmUp + options.steps);
  p.quant = quant_label(first.config());
  p.compute = first.config().text("compute_dtype");
  p.runs = first.names();
  TrainPack& pack = first.pack();
  const int64_t micros = first.micro_steps();

  // Batches differ in length: kernels of the longest so far would wait for the pages that they write first.
  Tensor::zeros(first.memory(), {room}, DType::u8, Tag::scratch);
  Totals totals;
  for (int64_t i = 0; i < kWarmUp * micros; ++i) pack.micro_step(totals);
  totals = {};
  backend.reset();
  first.memory().reset_peak();
  p.peaks = measure_peaks(p.backend);
  p.load = load_average();
  const auto begin = std::chrono::steady_clock::now();
  p.steps = options.steps;
  for (; p.micro_steps < p.steps * micros; ++p.micro_steps) pack.micro_step(totals);
  p.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  p.tokens = totals.tokens;
  p.labels = totals.labels;
  p.kernels = backend.times();
  p.memory = first.memory().peak();
  return p;
}

std::string profile_text(const Profile& p) {
  const double step = p.seconds / static_cast<double>(p.steps);
  std::string out = fmt::format(
      "{} run{} on a {} base, compute {}, backend {}, {} thread{}, {}; load average {:.1f}\n"
      "peaks of this run: {:.0f} GFLOP/s f32, {}, {:.1f} GB/s read from memory\n"
      "step: {:.0f} ms in {} micro-batch{} ({} steps measured), {:.0f} tokens, {:.0f} labels, {:.0f} "
      "tokens/s\n",
      p.runs.size(), p.runs.size() == 1 ? "" : "s", p.quant, p.compute, p.backend, p.threads,
      p.threads == 1 ? "" : "s", cpu_brand(), p.load, p.peaks.f32 / kGiga, bf16_peaks_text(p.peaks),
      p.peaks.read / kGiga, step * 1e3, p.micro_steps / p.steps, p.micro_steps == p.steps ? "" : "es",
      p.steps, static_cast<double>(p.tokens) / static_cast<double>(p.steps),
      static_cast<double>(p.labels) / static_cast<double>(p.steps),
      static_cast<double>(p.tokens) / p.seconds);
  Table table;
  table.columns = {"kernel", "type",    "calls", "ms",      "share",   "GFLOP",
                   "GB",     "GFLOP/s", "GB/s",  "of peak", "of read", "of roof"};
  for (const Row& row : rows_of(p)) {
    const bool works = row.gflop > 0 || row.gbyte > 0;
    std::vector<Value> cells = {row.kernel, works ? row.type : "", row.calls, row.ms, percent(row.share)};
    for (double value : {row.gflop, row.gbyte, row.gflops, row.gbytes})
      cells.emplace_back(works ? fmt::format("{:>7.4g}", value) : std::string());
    for (double value : {row.of_peak, row.of_bandwidth, row.of_roof}) cells.emplace_back(ratio(value));
    table.rows.push_back(std::move(cells));
  }
  return out + render_text(table);
}

std::string profile_json(const Profile& p) {
  Json rows = Json::array();
  for (const Row& row : rows_of(p))
    rows.push_back({{"kernel", row.kernel},
                    {"type", row.type},
                    {"calls", row.calls},
                    {"ms", row.ms},
                    {"share", row.share},
                    {"gflop", row.gflop},
                    {"gbyte", row.gbyte},
                    {"gflops", row.gflops},
                    {"gbytes_per_s", row.gbytes},
                    {"of_peak", row.of_peak},
                    {"of_bandwidth", row.of_bandwidth},
                    {"of_roof", row.of_roof}});
  const Json peaks = {{"f32_flops", p.peaks.f32},
                      {"bf16_flops", p.peaks.bf16},
                      {"amx_flops", p.peaks.amx},
                      {"read_bytes", p.peaks.read}};
  Json json = {{"runs", p.runs},
               {"quant", p.quant},
               {"compute_dtype", p.compute},
               {"backend", p.backend},
               {"threads", p.threads},
               {"cpu", cpu_brand()},
               {"load", p.load},
               {"peaks", peaks},
               {"steps", p.steps},
               {"micro_steps", p.micro_steps},
               {"tokens", p.tokens},
               {"labels", p.labels},
               {"seconds", p.seconds},
               {"memory", p.memory},
               {"kernels", rows}};
  return json.dump(1);
}

}  // namespace qlora
