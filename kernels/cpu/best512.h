#pragma once
// The AVX-512 kernels as this processor runs them fastest.
//
// Products of bf16 operands go by vdpbf16ps or as two multiply-adds on f32, with the same bits. AMD's Zen 4 does
// twice the work of f32 with vdpbf16ps; an Intel Xeon with AMX starts one every second cycle, and in each cycle
// two multiply-adds: half the work of f32. So the two are timed once, when they are first asked for: which of
// them is taken decides no result.

#include "kernels/cpu/kernels.h"

namespace qlora::cpu {

// The table with vdpbf16ps where the processor has it, with its products of more than a few rows by
// multiply-adds where they are faster; else the table without. REQUIRES: cpu_has_avx512().
const Kernels& best_avx512_kernels();

// The processor has vdpbf16ps, and it is the faster way.
bool vdpbf16ps_is_faster();

}  // namespace qlora::cpu
