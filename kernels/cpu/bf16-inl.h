// What products of bf16 need, on every instruction set.

// To the nearest bf16, ties to even, as an f32; NaN stays NaN (core/base/half.h).
QLORA_INLINE __m256 nearest_bf16(__m256 a) {
  const __m256i u = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256 quiet = _mm256_castsi256_ps(_mm256_or_si256(u, _mm256_set1_epi32(0x400000)));
  const __m256 kept =
      _mm256_blendv_ps(_mm256_castsi256_ps(rounded), quiet, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  return _mm256_and_ps(kept, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}

// The same of an operand of a product: denormals count as zeros before they are rounded.
QLORA_INLINE __m256 operand_nearest_bf16(__m256 a) {
  const __m256i exponent = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7f800000));
  const __m256i denormal = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
  // All but the sign of those goes.
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_srli_epi32(denormal, 1));
  return _mm256_andnot_ps(magnitude, nearest_bf16(a));
}

// The lanes whose bit is set; zeros elsewhere.
QLORA_INLINE __m256 keep8(__m256 a, uint32_t bits) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i on =
      _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int32_t>(bits)), bit), bit);
  return _mm256_and_ps(a, _mm256_castsi256_ps(on));
}

// Denormal operands and results count as zeros while one of these lives, where kOn. The barriers keep the
// arithmetic between loads and stores inside.
template <bool kOn>
class FlushDenormals {
 public:
  FlushDenormals() : before_(kOn ? _mm_getcsr() : 0) {
    if (kOn) _mm_setcsr(before_ | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON);
    asm volatile("" ::: "memory");
  }
  ~FlushDenormals() {
    asm volatile("" ::: "memory");
    if (kOn) _mm_setcsr(before_);
  }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned before_;
};
