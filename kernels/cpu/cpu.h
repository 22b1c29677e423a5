#pragma once
// The SIMD backends: class Cpu over the kernels of one instruction set (kernels.h). f32 runs in them; f64,
// and what is not hot, in the plain loops of Reference.
//
// avx2 needs AVX2 and FMA; avx512 needs AVX-512 F, BW, DQ and VL. The AVX-512 source has been compiled, and
// tested through its emulated 16-lane build (emulated512.h); tests run it itself wherever the processor has
// it.

#include <memory>

#include "kernels/backend.h"

namespace qlora {

namespace cpu {
struct Kernels;
// A backend over any table of kernels. REQUIRES: the processor runs them.
std::unique_ptr<Backend> make_cpu(const Kernels&);
// For work on the host that belongs to no backend: the kernels of the best instruction set that this machine
// has and QLORA_BACKEND allows. Null when it has none, or plain loops are asked for.
const Kernels* best_kernels();
}  // namespace cpu

// Null where the processor or the operating system lacks the instructions.
std::unique_ptr<Backend> make_avx2();
std::unique_ptr<Backend> make_avx512();

}  // namespace qlora
