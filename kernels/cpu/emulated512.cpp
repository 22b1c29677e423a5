// The AVX-512 build on machines without it: the same source with sixteen lanes made of two AVX2 registers.
// Linked into tests alone (emulated512.h).

#include "kernels/cpu/emulated512.h"

#include <immintrin.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/tasks.h"

#define QLORA_INLINE static inline __attribute__((always_inline))
#define QLORA_PAIRS 1
#define QLORA_TILES 1

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace qlora::emulated512 {
using namespace cpu;
#include "kernels/cpu/bf16-inl.h"
// (before the bytes)
#include "kernels/quant/int8-inl.h"
// (with its levels)
#include "kernels/cpu/bytes-inl.h"
// (before the vectors)
namespace half {
#include "kernels/cpu/vec8-inl.h"
// (before the codes)
#include "kernels/cpu/codes8-inl.h"
}  // namespace half
#include "kernels/cpu/vec16_emulated-inl.h"
// (before the region)
#include "kernels/cpu/scales-inl.h"
#include "kernels/cpu/tables_emulated-inl.h"
// (before the region)
#include "kernels/cpu/decode_segments-inl.h"
// (before the dots)
#include "kernels/cpu/decode_dots8-inl.h"
// (before the tiles)
#include "kernels/cpu/amx_emulated-inl.h"
// (after the vectors)
#include "kernels/cpu/region-inl.h"
}  // namespace qlora::emulated512
#pragma GCC pop_options

namespace qlora::cpu {

const Kernels& emulated512_kernels() {
  static const Kernels table = emulated512::make_table("emulated512");
  return table;
}

}  // namespace qlora::cpu
