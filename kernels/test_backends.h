#pragma once
// For tests: the backends that this machine can run, and what they can compute in.

#include <cstdint>
#include <cstdio>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace qlora::test {

// Whether the kernels of a GPU are among them, on the processor ("cuda-emulated"): they are a hundred times
// slower, so a test that takes long anyway leaves them out.
enum class EmulatedGpu : uint8_t { left_out, included };

// Their names, best first; the last is the reference.
inline std::vector<std::string> runnable_backends(EmulatedGpu gpu = EmulatedGpu::left_out) {
  std::vector<std::string> names;
  for (const BackendInfo& info : list_backends()) {
    if (info.available) names.push_back(info.name);
  }
  if (gpu == EmulatedGpu::included) names.insert(names.end() - 1, "cuda-emulated");
  return names;
}

// A backend and how products on it read their operands.
struct Variant {
  std::string backend;
  Operands operands = Operands::as_stored;
};
inline std::ostream& operator<<(std::ostream& out, const Variant& v) {
  return out << v.backend << (is_bf16(v.operands) ? " " : "")
             << (is_bf16(v.operands) ? name_of(v.operands) : "");
}

// Every runnable backend with operands of both kinds; the best one of the processor with those of AMX, too.
inline std::vector<Variant> runnable_variants(EmulatedGpu gpu = EmulatedGpu::left_out) {
  std::vector<Variant> all;
  for (const std::string& name : runnable_backends(gpu))
    for (Operands operands : kAllOperands)
      if (operands != Operands::bf16_amx || name == runnable_backends().front())
        all.push_back({name, operands});
  return all;
}

// The operands of bf16, for a test that takes long: those of AMX where the processor has it. Without it they
// have the same bits, slowly.
inline std::vector<Operands> bf16_operands() {
  if (cpu_has_amx_bf16()) return {Operands::bf16, Operands::bf16_amx};
  std::printf("(skipped a part: bf16_amx, on a processor without AMX)\n");
  return {Operands::bf16};
}

}  // namespace qlora::test
