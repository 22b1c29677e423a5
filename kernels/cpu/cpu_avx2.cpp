// The AVX2 build of the kernels. Everything from outside is included before the region opens; inside stand
// only files that include nothing from outside, so that no wide instruction can land in a function shared
// with others.

#include <immintrin.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/tasks.h"

#define QLORA_INLINE static inline __attribute__((always_inline))
#define QLORA_PAIRS 0
#define QLORA_TILES 0

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace qlora::avx2 {
using namespace cpu;
#include "kernels/cpu/bf16-inl.h"
// (before the bytes)
#include "kernels/quant/int8-inl.h"
// (with its levels)
#include "kernels/cpu/bytes-inl.h"
// (before the vectors)
#include "kernels/cpu/vec8-inl.h"
// (before the codes)
#include "kernels/cpu/codes8-inl.h"
// (before the region)
#include "kernels/cpu/scales-inl.h"
// (before the region)
#include "kernels/cpu/decode_segments-inl.h"
// (before the dots)
#include "kernels/cpu/decode_dots8-inl.h"
// (after the vectors)
#include "kernels/cpu/region-inl.h"
}  // namespace qlora::avx2
#pragma GCC pop_options

namespace qlora::cpu {

const Kernels& avx2_kernels() {
  static const Kernels table = avx2::make_table("avx2");
  return table;
}

}  // namespace qlora::cpu
