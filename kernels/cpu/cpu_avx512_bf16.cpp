// The AVX-512 build of the kernels for processors with AVX512-BF16 (vdpbf16ps), VNNI and VBMI. Everything from
// outside is included before the region opens; inside stand only files that include nothing from outside, so that no
// wide instruction can land in a function shared with others.

#include <immintrin.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/tasks.h"

#define QLORA_INLINE static inline __attribute__((always_inline))
#define QLORA_PAIRS 1
#define QLORA_TILES 1

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx512bf16,amx-tile,amx-bf16")
namespace qlora::avx512bf16 {
using namespace cpu;
#include "kernels/cpu/bf16-inl.h"
// (before the bytes)
#include "kernels/quant/int8-inl.h"
// (with its levels)
#include "kernels/cpu/bytes-inl.h"
// (before the vectors)
#include "kernels/cpu/vec16-inl.h"
// (before the codes)
#include "kernels/cpu/codes16-inl.h"
// (before the region)
#include "kernels/cpu/scales16-inl.h"
#include "kernels/cpu/tables16-inl.h"
// (before the region)
#include "kernels/cpu/decode_segments-inl.h"
// (before the dots)
#include "kernels/cpu/decode_dots16-inl.h"
#include "kernels/cpu/decode_alone16-inl.h"
// (before the tiles)
#include "kernels/cpu/amx-inl.h"
// (after the vectors)
#include "kernels/cpu/region-inl.h"
}  // namespace qlora::avx512bf16
#pragma GCC pop_options

namespace qlora::cpu {

const Kernels& avx512_bf16_kernels() {
  static const Kernels table = avx512bf16::make_table("avx512");
  return table;
}

}  // namespace qlora::cpu
