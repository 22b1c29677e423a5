#pragma once
// For tests: the tables of kernels that this machine can run, the emulated 16-lane build among them.

#include <vector>

#include "kernels/cpu/emulated512.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"

namespace qlora::test {

inline std::vector<const cpu::Kernels*> runnable_tables() {
  std::vector<const cpu::Kernels*> all;
  if (cpu_has_avx2()) {
    all.push_back(&cpu::avx2_kernels());
    all.push_back(&cpu::emulated512_kernels());
  }
  if (cpu_has_avx512()) all.push_back(&cpu::avx512_kernels());
  if (cpu_has_avx512_bf16()) all.push_back(&cpu::avx512_bf16_kernels());
  return all;
}

// Whether Operands::bf16_amx runs on a table of runnable_tables(): that of the build with AMX needs a
// processor with it.
inline bool runs_tiles(const cpu::Kernels& table) {
  return !cpu_has_avx512_bf16() || &table != &cpu::avx512_bf16_kernels() || cpu_has_amx_bf16();
}

}  // namespace qlora::test
