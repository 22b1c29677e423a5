#include "kernels/cpu/peaks.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <functional>
#include <vector>

#include "core/base/parallel.h"
#include "kernels/cpu/best512.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/peak_amx.h"
#include "kernels/cpu/peak_bf16.h"

namespace qlora {
namespace {

constexpr int kTries = 5;

// One thread is timed by its processor's seconds, which a neighbour's load cannot stretch; several by the
// wall's.
double now() {
  timespec t{};
  ::clock_gettime(thread_count() == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double seconds_of(const std::function<void()>& body) {
  const double begin = now();
  body();
  return now() - begin;
}

// The best of some short runs of `work` units on every thread. Several run until all of them do: one that has
// just been woken may wait on the processor of another for tens of milliseconds.
double best_rate(double work, const std::function<void()>& body) {
  constexpr double kWarm = 0.1;  // seconds
  const int threads = thread_count();
  const auto run = [&] { parallel_for(threads, 1, [&](int64_t, int64_t) { body(); }); };
  for (const double begin = now(); threads > 1 && now() - begin < kWarm;) run();
  double best = 0;
  for (int i = 0; i < kTries; ++i) best = std::max(best, work * threads / seconds_of(run));
  return best;
}

const cpu::Kernels* kernels_of(std::string_view backend) {
  if (backend == "avx2") return cpu_has_avx2() ? &cpu::avx2_kernels() : nullptr;
  if (cpu_has_avx512()) return &cpu::avx512_kernels();
  return cpu_has_avx2() ? &cpu::avx2_kernels() : nullptr;
}

// Several streams at once keep more prefetchers busy than one.
uint64_t sum_streams(const uint64_t* data, int64_t n, int64_t streams) {
  constexpr int64_t kLine = 8;
  const int64_t each = n / streams / kLine * kLine;
  uint64_t sum[kLine] = {};
  for (int64_t i = 0; i < each; i += kLine)
    for (int64_t s = 0; s < streams; ++s) {
      const uint64_t* line = data + s * each + i;
      for (int64_t j = 0; j < kLine; ++j) sum[j] += line[j];
    }
  uint64_t all = 0;
  for (uint64_t v : sum) all += v;
  return all;
}

}  // namespace

double measure_f32_peak(std::string_view backend) {
  const cpu::Kernels* kernels = kernels_of(backend);
  if (kernels == nullptr) return 0;
  constexpr int64_t kRounds = 4000000;
  return best_rate(2.0 * 12 * kernels->lanes * kRounds, [&] { kernels->fma_peak(kRounds); });
}

double measure_bf16_peak(std::string_view backend) {
  if (!cpu_has_avx512_bf16() || backend == "avx2") return 0;
  if (!cpu::vdpbf16ps_is_faster()) return measure_f32_peak(backend);
  constexpr int64_t kRounds = 4000000;
  return best_rate(cpu::kBf16PeakFlops * kRounds, [&] { cpu::bf16_peak(kRounds); });
}

double measure_amx_peak(std::string_view backend) {
  if (!cpu_has_amx_bf16() || backend == "avx2") return 0;
  constexpr int64_t kRounds = 500000;
  return best_rate(cpu::kAmxPeakFlops * kRounds, [] { cpu::amx_peak(kRounds); });
}

double measure_read_bandwidth() {
  constexpr int64_t kBytes = 256 << 20;  // beyond every cache that a few cores share
  std::vector<uint64_t> data(kBytes / 8, 1);
  std::atomic<uint64_t> sink = 0;
  double best = 0;
  for (int64_t streams : {1, 4, 8})
    for (int i = 0; i < kTries; ++i) {
      double seconds = seconds_of([&] {
        parallel_for(
            static_cast<int64_t>(data.size()), static_cast<int64_t>(data.size()) / thread_count(),
            [&](int64_t lo, int64_t hi) { sink += sum_streams(data.data() + lo, hi - lo, streams); });
      });
      best = std::max(best, kBytes / seconds);
    }
  return sink > 0 ? best : 0;
}

double peak_of(const Peaks& p, Operands operands) {
  const double own = operands == Operands::bf16_amx ? p.amx : operands == Operands::bf16 ? p.bf16 : 0;
  return own > 0 ? own : p.f32;
}

std::string name_of_peak(const Peaks& p, Operands operands) {
  const bool own = operands == Operands::bf16_amx ? p.amx > 0 : operands == Operands::bf16 && p.bf16 > 0;
  return std::string(!own ? "f32" : operands == Operands::bf16_amx ? "AMX" : "bf16") + " peak of this run";
}

Peaks measure_peaks(std::string_view backend) {
  const cpu::Kernels* kernels = kernels_of(backend);
  return {.kernels = kernels != nullptr ? kernels->name : "",
          .f32 = measure_f32_peak(backend),
          .bf16 = measure_bf16_peak(backend),
          .amx = measure_amx_peak(backend),
          .read = measure_read_bandwidth()};
}

}  // namespace qlora
