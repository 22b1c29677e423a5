#pragma once
// The peak probe of the tiles of AMX.

#include <cstdint>

namespace qlora::cpu {

inline constexpr double kAmxPeakFlops =
    4.0 * 16 * 16 * 32 * 2;  // a round: 4 instructions, 16 x 16 sums, 32 multiply-adds each

// `rounds` rounds of independent tdpbf16ps on tiles that are there already. REQUIRES: cpu_has_amx_bf16().
void amx_peak(int64_t rounds);

}  // namespace qlora::cpu
