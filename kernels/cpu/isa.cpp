#include "kernels/cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

namespace qlora {

// __builtin_cpu_supports reads CPUID and, through XGETBV, what the operating system saves.
bool cpu_has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool cpu_has_avx512_bf16() {
  return cpu_has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vnni");
}

namespace {

// Linux saves tiles for a process that has asked for them (arch/x86/include/uapi/asm/prctl.h).
bool may_use_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Tiles, with the products of `feature`.
bool find_amx(unsigned feature) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return cpu_has_avx512_bf16() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 &&
         (edx & feature) != 0 && (edx & bit_AMX_TILE) != 0 && may_use_tiles();
}

}  // namespace

bool cpu_has_amx_bf16() {
  static const bool has = find_amx(bit_AMX_BF16);
  return has;
}

bool cpu_has_amx_int8() {
  static const bool has = find_amx(bit_AMX_INT8);
  return has;
}

std::string cpu_brand() {
  unsigned leaf[12] = {};
  if (__get_cpuid_max(0x80000000u, nullptr) < 0x80000004u) return "unknown processor";
  for (unsigned i = 0; i < 3; ++i)
    __get_cpuid(0x80000002u + i, &leaf[4 * i], &leaf[4 * i + 1], &leaf[4 * i + 2], &leaf[4 * i + 3]);
  char text[49] = {};
  std::memcpy(text, leaf, 48);
  std::string name = text;
  name.erase(0, name.find_first_not_of(' '));
  name.erase(name.find_last_not_of(' ') + 1);
  return name.empty() ? "unknown processor" : name;
}

}  // namespace qlora
