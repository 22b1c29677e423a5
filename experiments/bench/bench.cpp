#include "experiments/bench/bench.h"

#include <sys/resource.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "experiments/bench/peers.h"
#include "experiments/build_info.h"
#include "experiments/profile.h"
#include "kernels/cpu/isa.h"

namespace qlora::bench {
namespace {

std::map<std::string, PeerValues> read_peers(const Path& path) {
  std::map<std::string, PeerValues> out;
  if (path.empty()) return out;
  const std::string origin = path.string();
  const Json json = parse_json(read_file(path), origin);
  try {
    for (const Json& entry : json) {
      PeerValues& values = out[entry.at("row").get<std::string>()];
      values.name = entry.at("peer_name").get<std::string>();
      values.peer = entry.at("peer").get<std::vector<double>>();
      if (entry.contains("ours")) values.ours = entry.at("ours").get<std::vector<double>>();
      if (!entry.at("agree").is_null()) values.agree = entry.at("agree").get<bool>();
      values.compared = entry.at("compared").get<std::string>();
      QLORA_CHECK(!values.peer.empty() && (values.ours.empty() || values.ours.size() == values.peer.size()),
                  data, "{}: {}: as many values of ours as of the peer, or none", origin,
                  entry.at("row").dump());
    }
  } catch (const Json::exception& e) {
    fail(ErrorKind::data,
         "{}: expected a list of {{row, peer_name, peer: [..], ours: [..], agree, compared}}: {}", origin,
         e.what());
  }
  return out;
}

struct Family {
  std::vector<const char*> rows;
  void (*run)(Bench&);
  double seconds;  // about, of all its rows on two quiet cores of a Xeon: tells how long the rest takes
};
// In the table's order.
const Family kFamilies[] = {
    {{"nf4_gemm", "dense_gemm"}, gemm_rows, 230},
    {{"small_row"}, small_row_rows, 12},
    {{"dequantize", "quantize"}, codec_rows, 3},
    {{"decode"}, decode_rows, 12},
    {{"step", "ragged", "memory"}, step_rows, 45},
    {{"packed"}, packed_rows, 40},
    {{"quickstart"}, quickstart_rows, 25},
    {{"threads", "useful_flops"}, scaling_rows, 20},
    {{"mmlu/val", "mmlu/test"}, scoring_rows, 85},
    {{"mmlu/lm_eval", "mmlu/prefix_loop"}, peer_question_rows, 20},
    {{"elo"}, elo_rows, 2},
};

// Of this process and of the measuring processes that have ended.
double processor_seconds() {
  double seconds = 0;
  for (int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage used{};
    ::getrusage(who, &used);
    for (const timeval& t : {used.ru_utime, used.ru_stime})
      seconds += static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  }
  return seconds;
}

}  // namespace

Bench::Bench(Options options, std::function<void(const Row&)> emitted)
    : options_(std::move(options)),
      emitted_(std::move(emitted)),
      backend_(make_backend(options_.backend)),
      oracle_(make_backend("reference")),
      threads_(options_.threads > 0 ? options_.threads : std::min(2, default_thread_count())),
      peers_(read_peers(options_.peers)) {
  if (options_.model.empty()) options_.model = default_model();
  set_thread_count(threads_);
}

bool Bench::has(const std::string& backend) const {
  for (const BackendInfo& info : list_backends())
    if (info.name == backend) return info.available;
  return false;
}

std::vector<int> Bench::thread_counts() const {
  return threads_ == 1 ? std::vector<int>{1} : std::vector<int>{1, threads_};
}

const Peaks& Bench::peaks(int threads) {
  auto [it, fresh] = peaks_.try_emplace(threads);
  if (fresh) {
    const int before = thread_count();
    set_thread_count(threads);
    it->second = measure_peaks(backend_->name());
    set_thread_count(before);
  }
  return it->second;
}

bool Bench::wants(const std::string& row) const {
  return options_.rows.empty() || std::any_of(options_.rows.begin(), options_.rows.end(),
                                              [&](const std::string& r) { return row.starts_with(r); });
}
bool Bench::wants_any(const std::string& beginning) const {
  return wants(beginning) || std::any_of(options_.rows.begin(), options_.rows.end(),
                                         [&](const std::string& r) { return r.starts_with(beginning); });
}

const PeerValues* Bench::peer(const std::string& row) const {
  auto it = peers_.find(row);
  return it == peers_.end() ? nullptr : &it->second;
}

void Bench::emit(Row row) {
  if (const PeerValues* values = peer(row.name)) {
    row.against = values->name;
    row.peer = median(values->peer);
    if (!values->ours.empty()) {
      row.ours = median(values->ours);
      const std::vector<double> ratios = quotients(values->ours, values->peer);
      row.ratio = median(ratios);
      row.spread = spread(ratios);
    } else if (row.ours) {
      row.ratio = *row.ours / *row.peer;
    }
    const bool disagree = !values->agree.value_or(true);
    if (disagree) row.ratio.reset();
    row.note += (row.note.empty() ? "" : "; ") +
                (disagree ? "no ratio, for the sides disagree: " + values->compared : values->compared);
  } else if (!row.ratio && row.note.empty()) {
    row.note =
        "peer absent: " + (row.against.empty() ? std::string("not measured in this run") : row.against);
    row.against.clear();
  }
  rows_.push_back(row);
  emitted_(row);
}

void Bench::outcome(const std::string& row, const Json& numbers) {
  outcomes_[row] = numbers.dump();
}

std::string Bench::outcomes_json() const {
  std::string text;
  for (const auto& [row, numbers] : outcomes_)
    text += fmt::format("{}{}: {}", text.empty() ? "" : ",\n ", Json(row).dump(), numbers);
  return "{" + text + "}\n";
}

Effort Bench::kernel_effort() const {
  return options_.quick ? Effort{1, 5, 0.02} : Effort{3, 50, 0.08, 0.25};
}

Effort Bench::step_effort() const {
  return options_.quick ? Effort{1, 1, 0} : Effort{3, 3, 0, 15};
}

Path default_model() {
  return qlora_home() / "models" / "SmolLM2-135M-Instruct";
}

void run_all(Bench& bench, const std::function<void(const FamilyTime&)>& finished) {
  double passed = 0, usual = 0, usual_left = 0;
  for (const Family& f : kFamilies) usual_left += f.seconds;
  for (const Family& f : kFamilies) {
    usual_left -= f.seconds;
    if (std::none_of(f.rows.begin(), f.rows.end(), [&](const char* row) { return bench.wants_any(row); }))
      continue;
    const double wall = now_seconds(), processor = processor_seconds();
    f.run(bench);
    FamilyTime time{fmt::format("{}", fmt::join(f.rows, ", ")),
                    now_seconds() - wall,
                    processor_seconds() - processor,
                    {}};
    passed += time.wall;
    usual += f.seconds;
    if (bench.options().rows.empty()) time.left = passed / usual * usual_left;
    if (finished) finished(time);
  }
}

std::string one_line(const FamilyTime& t) {
  std::string out = fmt::format("{}: took {:.0f} s, {:.0f} s of the processor", t.rows, t.wall, t.processor);
  if (t.left && *t.left > 0) out += fmt::format("; the rest takes about {:.0f} s", *t.left);
  return out;
}

Json report(Bench& bench) {
  Json peaks = Json::object(), rows = Json::array();
  for (int threads : bench.thread_counts()) {
    const Peaks& p = bench.peaks(threads);
    peaks[std::to_string(threads)] = {{"f32_flops", p.f32},
                                      {"bf16_flops", p.bf16},
                                      {"amx_flops", p.amx},
                                      {"read_bytes_per_s", p.read},
                                      {"kernels", p.kernels}};
  }
  for (const Row& row : bench.rows()) rows.push_back(to_json(row));
  return {{"program", program_line()},
          {"cpu", cpu_brand()},
          {"backend", bench.backend().name()},
          {"peaks_by_threads", peaks},
          {"load_at_end", load_average()},
          {"quick", bench.options().quick},
          {"rows", rows}};
}

std::string report_text(Bench& bench) {
  std::string out = fmt::format("{}; {}; backend {}; load average {:.1f}\n", program_line(), cpu_brand(),
                                bench.backend().name(), load_average());
  for (int threads : bench.thread_counts()) {
    const Peaks& p = bench.peaks(threads);
    out += fmt::format("{} thread{} ({} seconds): {:.0f} GFLOP/s f32, {}, {:.1f} GB/s read from memory\n",
                       threads, threads == 1 ? "" : "s", threads == 1 ? "processor" : "wall", p.f32 * 1e-9,
                       bf16_peaks_text(p), p.read * 1e-9);
  }
  return out + render(bench.rows());
}

}  // namespace qlora::bench
