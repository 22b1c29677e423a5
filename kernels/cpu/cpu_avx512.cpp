// The AVX-512 build of the kernels. Everything from outside is included before the region opens; inside stand
// only files that include nothing from outside, so that no wide instruction can land in a function shared
// with others.

#include <immintrin.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/tasks.h"

#define QLORA_INLINE static inline __attribute__((always_inline))
#define QLORA_PAIRS 0
#define QLORA_TILES 0

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
namespace qlora::avx512 {
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
#include "kernels/cpu/scales-inl.h"
// (before the region)
#include "kernels/cpu/decode_segments-inl.h"
// (before the dots)
#include "kernels/cpu/decode_dots8-inl.h"
// (after the vectors)
#include "kernels/cpu/region-inl.h"
}  // namespace qlora::avx512
#pragma GCC pop_options

namespace qlora::cpu {

const Kernels& avx512_kernels() {
  static const Kernels table = avx512::make_table("avx512");
  return table;
}

}  // namespace qlora::cpu
