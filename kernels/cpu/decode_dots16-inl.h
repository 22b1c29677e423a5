// Whole products of the decode class (decode_rows-inl.h), four outputs in a vector, with AVX512-VNNI: a
// permutation looks up 32 levels, vpdpwssd multiplies and adds as many.

constexpr int kDotOutputs = 4, kDotGroups = 2;
constexpr int64_t kDotRows = 8;

// The levels twice: a lookup takes five bits, the fifth of which is another code's.
struct DotLevels {
  __m512i words;
  explicit DotLevels(const WholeLevels& levels)
      : words(_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(levels.words)))) {}
};

// Sixteen bytes of codes of four outputs.
QLORA_INLINE void levels_of_four(const DotLevels& t, const uint8_t* codes, int64_t ld, __m512i* w) {
  const __m512i words = four_rows(codes, ld);
  w[0] = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 4), t.words);
  w[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 12), t.words);
  w[2] = _mm512_permutexvar_epi16(words, t.words);
  w[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, 8), t.words);
}

QLORA_INLINE __m512 four_scales(const float* p, int64_t ld) {
  __m512 v = _mm512_set1_ps(p[0]);
  v = _mm512_mask_broadcastss_ps(v, 0x00f0, _mm_load_ss(p + ld));
  v = _mm512_mask_broadcastss_ps(v, 0x0f00, _mm_load_ss(p + 2 * ld));
  return _mm512_mask_broadcastss_ps(v, 0xf000, _mm_load_ss(p + 3 * ld));
}

// sums[r][output], of R rows and G groups of outputs.
template <int R, int G>
QLORA_INLINE void dot_segments(const DotLevels& t, const DotWeights& w, const DotRows& x, float* sums) {
  __m512 s[G][R];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) s[g][r] = _mm512_setzero_ps();
  const uint8_t *codes = w.codes, *rows = x.segments, *ahead = w.ahead;
  const float* x_scales = x.scales;
  for (int64_t i = 0; i < w.segments; ++i, codes += 32, rows += R * kArranged, x_scales += R) {
#pragma GCC unroll 4
    for (int line = 0; line < 2 * G; ++line, ahead += 64) __builtin_prefetch(ahead, 0, 2);
    __m512i levels[G][8];
    __m512 scales[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      levels_of_four(t, codes + 4 * g * w.ld, w.ld, levels[g]);
      levels_of_four(t, codes + 4 * g * w.ld + 16, w.ld, levels[g] + 4);
      scales[g] = four_scales(w.scales + 4 * g * w.scales_ld + i, w.scales_ld);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto* p = reinterpret_cast<const __m128i*>(rows + r * kArranged);
      __m512i sum[G];
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) sum[g] = _mm512_setzero_si512();
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        const __m512i words = _mm512_broadcast_i32x4(_mm_loadu_si128(p + j));
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) sum[g] = _mm512_dpwssd_epi32(sum[g], levels[g][j], words);
      }
      const __m512 x_scale = _mm512_set1_ps(x_scales[r]);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g)
        s[g][r] = _mm512_fmadd_ps(_mm512_mul_ps(scales[g], x_scale), _mm512_cvtepi32_ps(sum[g]), s[g][r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      __m512 v = _mm512_add_ps(s[g][r], _mm512_permute_ps(s[g][r], 0xb1));
      v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
      _mm_storeu_ps(sums + (r * G + g) * kDotOutputs,
                    _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, v)));
    }
}
