#pragma once
// What this machine can do, measured now: the yardsticks of `qlora profile` and `qlora bench`. Clocks and
// neighbours change from minute to minute, so a fraction of a peak means something only beside the peak of
// its own run.

#include <string>
#include <string_view>

#include "kernels/args_matmul.h"

namespace qlora {

struct Peaks {
  std::string kernels;  // whose multiply-adds: "avx2" or "avx512"; "" where neither runs
  double f32 = 0;       // FLOP/s of f32 multiply-adds in registers, all threads
  double bf16 = 0;      // FLOP/s of vdpbf16ps, or of multiply-adds where they are faster, all threads; 0: the
                        // processor does not have it, or it is not in use
  double amx = 0;       // FLOP/s of tdpbf16ps, all threads; 0: likewise
  double read = 0;      // bytes/s read from memory, all threads
  bool operator==(const Peaks&) const = default;
};

// What products of these operands can reach: where the processor has no instruction for them, they are made
// of f32 multiply-adds.
double peak_of(const Peaks&, Operands);
// Its name: "AMX peak of this run".
std::string name_of_peak(const Peaks&, Operands);

// Of the kernels of one backend ("avx2", "avx512"), with thread_count() threads; another name (reference) is
// measured against the widest kernels that run here. Takes about 0.3 s and 256 MiB.
Peaks measure_peaks(std::string_view backend);

// The parts of it.
double measure_f32_peak(std::string_view backend);
double measure_bf16_peak(std::string_view backend);
double measure_amx_peak(std::string_view backend);
double measure_read_bandwidth();

}  // namespace qlora
