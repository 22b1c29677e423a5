#pragma once
// The peak probe of bf16: a region of its own, since not every processor with AVX-512 has vdpbf16ps.

#include <cstdint>

namespace qlora::cpu {

inline constexpr double kBf16PeakFlops =
    12.0 * 16 * 4;  // a round: 12 instructions, 16 lanes, two multiply-adds each

// `rounds` rounds of independent products in registers; returns their sum. REQUIRES: cpu_has_avx512_bf16().
float bf16_peak(int64_t rounds);

}  // namespace qlora::cpu
