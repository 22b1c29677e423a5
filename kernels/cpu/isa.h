#pragma once
// Which instruction sets this machine can run. Asked once per backend, at run time; nothing else decides.

#include <string>

namespace qlora {

// AVX2 and FMA, in the processor and saved by the operating system.
bool cpu_has_avx2();
// AVX-512 F, BW, DQ and VL, likewise.
bool cpu_has_avx512();
// AVX512-BF16 beside them (vdpbf16ps, two bf16 products a lane), VNNI, and VBMI, which of such processors
// only Cooper Lake lacks.
bool cpu_has_avx512_bf16();
// AMX tiles with bf16 (where AVX-512 with bf16 is), which the operating system has let this process use:
// asked for at the first call.
bool cpu_has_amx_bf16();
// The same with products of bytes.
bool cpu_has_amx_int8();
// The processor's own name ("AMD EPYC 7B13 64-Core Processor"), or "unknown processor".
std::string cpu_brand();

}  // namespace qlora
