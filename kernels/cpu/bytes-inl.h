// Lookups of f32 by their bytes, for eight rows of codes at a time: eight lanes, on every instruction set.

// The 16 levels as four tables of their bytes, for byte shuffles: two thirds of the work of looking up
// floats.
struct ByteTables {
  __m256i byte[4];
  __m256i transpose;  // within each half: byte b of row i, stored at 4 i + b, to 4 b + i
  explicit ByteTables(const float* levels) {
    uint8_t bytes[4][16];
    for (int i = 0; i < 16; ++i) {
      uint32_t bits;
      __builtin_memcpy(&bits, levels + i, 4);
      for (int b = 0; b < 4; ++b) bytes[b][i] = static_cast<uint8_t>(bits >> (8 * b));
    }
    for (int b = 0; b < 4; ++b)
      byte[b] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes[b])));
    transpose =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  }
};

// Levels of one code of each byte: v[b] lane i = level of byte b of row i. `codes` holds byte 0 of rows 0..3
// (rows 4..7 in the upper half), then byte 1 of them, and so on.
QLORA_INLINE void levels_of_bytes(const ByteTables& t, __m256i codes, __m256i (&v)[4]) {
  const __m256i b0 = _mm256_shuffle_epi8(t.byte[0], codes), b1 = _mm256_shuffle_epi8(t.byte[1], codes);
  const __m256i b2 = _mm256_shuffle_epi8(t.byte[2], codes), b3 = _mm256_shuffle_epi8(t.byte[3], codes);
  const __m256i low0 = _mm256_unpacklo_epi8(b0, b1), low1 = _mm256_unpackhi_epi8(b0, b1);
  const __m256i high0 = _mm256_unpacklo_epi8(b2, b3), high1 = _mm256_unpackhi_epi8(b2, b3);
  v[0] = _mm256_unpacklo_epi16(low0, high0);
  v[1] = _mm256_unpackhi_epi16(low0, high0);
  v[2] = _mm256_unpacklo_epi16(low1, high1);
  v[3] = _mm256_unpackhi_epi16(low1, high1);
}

// Eight values of k, from a dword of codes of each of eight rows: even[b] lane i = level of k = 2 b of row i,
// odd[b] that of 2 b + 1.
QLORA_INLINE void levels_of_words(const ByteTables& t, __m256i words, __m256i (&even)[4], __m256i (&odd)[4]) {
  const __m256i low_nibble = _mm256_set1_epi8(15);
  const __m256i bytes = _mm256_shuffle_epi8(words, t.transpose);
  levels_of_bytes(t, _mm256_and_si256(_mm256_srli_epi32(bytes, 4), low_nibble), even);
  levels_of_bytes(t, _mm256_and_si256(bytes, low_nibble), odd);
}

// Levels of 8-bit codes, k / 127 rounded once, from whole numbers (quant/int8-inl.h).
QLORA_INLINE __m256 int8_levels(__m256i k) {
  const __m256 v = _mm256_cvtepi32_ps(k);
  return _mm256_fmadd_ps(v, _mm256_set1_ps(Int8::kStep), _mm256_mul_ps(v, _mm256_set1_ps(Int8::kStepRest)));
}
// Of byte kByte of every word.
template <int kByte>
QLORA_INLINE __m256 int8_levels_of(__m256i words) {
  return int8_levels(_mm256_srai_epi32(_mm256_slli_epi32(words, 24 - 8 * kByte), 24));
}

// Sixteen bytes of each of eight rows, as dwords: v[j] lane i = dword j of row i.
QLORA_INLINE void rows_of_dwords(const uint8_t* p, int64_t stride, __m256i (&v)[4]) {
  for (int j = 0; j < 4; ++j) {
    const auto* low = reinterpret_cast<const __m128i*>(p + j * stride);
    const auto* high = reinterpret_cast<const __m128i*>(p + (j + 4) * stride);
    v[j] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high), 1);
  }
  const __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
  const __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm256_unpacklo_epi64(a, c);
  v[1] = _mm256_unpackhi_epi64(a, c);
  v[2] = _mm256_unpacklo_epi64(b, d);
  v[3] = _mm256_unpackhi_epi64(b, d);
}
