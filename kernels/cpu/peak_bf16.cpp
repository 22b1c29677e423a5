// See peak_bf16.h.

#include "kernels/cpu/peak_bf16.h"

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bf16")
namespace qlora::avx512bf16 {

float bf16_peak(int64_t rounds) {
  const __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
  __m512 s[12];
  for (int i = 0; i < 12; ++i) s[i] = _mm512_set1_ps(static_cast<float>(i));
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) s[i] = _mm512_dpbf16_ps(s[i], x, x);
  for (int i = 1; i < 12; ++i) s[0] = _mm512_add_ps(s[0], s[i]);
  return _mm512_cvtss_f32(s[0]);
}

}  // namespace qlora::avx512bf16
#pragma GCC pop_options

namespace qlora::cpu {

float bf16_peak(int64_t rounds) {
  return avx512bf16::bf16_peak(rounds);
}

}  // namespace qlora::cpu
