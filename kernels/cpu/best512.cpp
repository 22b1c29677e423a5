#include "kernels/cpu/best512.h"

#include <algorithm>
#include <ctime>
#include <limits>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/peak_bf16.h"

namespace qlora::cpu {
namespace {

// Seconds of this thread's processor.
double now() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// In turn, the best of a few rounds of some ten microseconds: the two differ by a factor of two, one way or
// the other.
bool time_both() {
  constexpr int64_t kRounds = 5000;
  const Kernels& kernels = avx512_kernels();
  double pairs = std::numeric_limits<double>::infinity(), adds = pairs;
  for (int i = 0; i < 9; ++i) {
    const double begin = now();
    bf16_peak(kRounds);
    const double middle = now();
    kernels.fma_peak(kRounds);
    pairs = std::min(pairs, middle - begin);
    adds = std::min(adds, now() - middle);
  }
  return kBf16PeakFlops / pairs > 2.0 * 12 * kernels.lanes / adds;
}

// A product of so few rows waits for its codes, which are decoded to pairs in half the registers.
constexpr int64_t kFewRows = 4;

void gemm_by_rows(const GemmArgs& a) {
  const Kernels& kernels = avx512_bf16_kernels();
  (a.m <= kFewRows ? kernels.gemm_bf16 : kernels.gemm_bf16_fma)(a);
}

// Of the build with AVX512-BF16, what is fast on this processor and runs on it.
Kernels chosen() {
  Kernels table = avx512_bf16_kernels();
  if (!vdpbf16ps_is_faster()) table.gemm_bf16 = gemm_by_rows;
  if (!cpu_has_amx_bf16()) {
    table.gemm_amx = table.gemm_amx_fma;
    table.thin_amx = table.thin_amx_fma;
    table.attention_amx = table.attention_amx_fma;
    table.attention_backward_amx = table.attention_backward_amx_fma;
  }
  if (__builtin_cpu_is("amd")) table.decode_rows = table.decode_rows_halves;  // (decode_alone16-inl.h)
  if (cpu_has_amx_int8()) table.decode_rows = table.decode_rows_amx;
  return table;
}

}  // namespace

bool vdpbf16ps_is_faster() {
  static const bool faster = cpu_has_avx512_bf16() && time_both();
  return faster;
}

const Kernels& best_avx512_kernels() {
  if (!cpu_has_avx512_bf16()) return avx512_kernels();
  static const Kernels table = chosen();
  return table;
}

}  // namespace qlora::cpu
