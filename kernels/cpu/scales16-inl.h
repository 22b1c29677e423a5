// Double-quantized scales, with AVX512-VBMI: the same functions as scales-inl.h. A permutation looks up 64
// bytes among 128, so that the map is four tables, one for each byte of its floats.

// The 256 values of one byte of the floats.
struct BytePlane {
  __m512i values[4];
};
// Byte `which` of every float of p[0, 64).
QLORA_INLINE __m512i byte_of_floats(const float* p, int which) {
  alignas(64) static const uint8_t kFirst[64] = {
      0,  4,  8,  12,  16,  20,  24,  28,  32,  36,  40, 44, 48, 52,  56,  60,  64,  68,  72,  76, 80, 84,
      88, 92, 96, 100, 104, 108, 112, 116, 120, 124, 0,  4,  8,  12,  16,  20,  24,  28,  32,  36, 40, 44,
      48, 52, 56, 60,  64,  68,  72,  76,  80,  84,  88, 92, 96, 100, 104, 108, 112, 116, 120, 124};
  const __m512i from = _mm512_add_epi8(_mm512_load_si512(kFirst), _mm512_set1_epi8(static_cast<char>(which)));
  const __m512i low = _mm512_permutex2var_epi8(iload(p).v, from, iload(p + 16).v);
  const __m512i high = _mm512_permutex2var_epi8(iload(p + 32).v, from, iload(p + 48).v);
  return _mm512_mask_blend_epi64(0xf0, low, high);
}
QLORA_INLINE __m512i lookup(const BytePlane& t, __m512i codes, __mmask64 upper) {
  return _mm512_mask_blend_epi8(upper, _mm512_permutex2var_epi8(t.values[0], codes, t.values[1]),
                                _mm512_permutex2var_epi8(t.values[2], codes, t.values[3]));
}

struct ScaleMap {
  BytePlane plane[4];
  explicit ScaleMap(const float* map) {
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) plane[b].values[i] = byte_of_floats(map + 64 * i, b);
  }
};

// out[i], sixteen floats each: map[codes[16 i + lane]].
QLORA_INLINE void lookup_64(const ScaleMap& map, __m512i codes, Vec (&out)[4]) {
  // Unpacking takes quarters apart: four codes of every quarter come together.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  codes = _mm512_permutexvar_epi32(order, codes);
  const __mmask64 upper = _mm512_movepi8_mask(codes);
  __m512i b[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) b[i] = lookup(map.plane[i], codes, upper);
  const __m512i low[2] = {_mm512_unpacklo_epi8(b[0], b[1]), _mm512_unpackhi_epi8(b[0], b[1])};
  const __m512i high[2] = {_mm512_unpacklo_epi8(b[2], b[3]), _mm512_unpackhi_epi8(b[2], b[3])};
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    out[2 * i] = as_float({_mm512_unpacklo_epi16(low[i], high[i])});
    out[2 * i + 1] = as_float({_mm512_unpackhi_epi16(low[i], high[i])});
  }
}

QLORA_INLINE void expand_group(const ScaleMap& map, const uint8_t* codes, int64_t n, float nested,
                               float offset, float* out) {
  const Vec factor = set1(nested), addend = set1(offset);
  Vec v[4];
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    lookup_64(map, iload(codes + i).v, v);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) store(out + i + j * kLanes, v[j] * factor + addend);
  }
  if (i == n) return;
  lookup_64(map, _mm512_maskz_loadu_epi8((uint64_t{1} << (n - i)) - 1, codes + i), v);
  for (int j = 0; i < n; ++j, i += kLanes)
    store_some(out + i, v[j] * factor + addend, n - i < kLanes ? n - i : kLanes);
}
