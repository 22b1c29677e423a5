#pragma once
// For tests: the 16-lane build of the kernels over pairs of AVX2 registers.

#include "kernels/cpu/kernels.h"

namespace qlora::cpu {

// REQUIRES: cpu_has_avx2().
const Kernels& emulated512_kernels();

}  // namespace qlora::cpu
