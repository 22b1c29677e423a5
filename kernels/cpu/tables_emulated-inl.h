// Eight columns of codes as pairs of bf16, with AVX2: the same functions as tables16-inl.h, for tests
// alone.

constexpr bool kDotsFlush = false;

struct PairTables {
  uint32_t values[8][16];  // bf16 in the lower half
};
struct PairLevels {
  static constexpr int kBits = 4;
  using Tables = PairTables;
  const float* levels;
  explicit PairLevels(const float* p) : levels(p) {}
};
QLORA_INLINE PairTables pair_tables(const PairLevels& c, const float* scales) {
  PairTables t;
  for (int i = 0; i < 8; ++i)
    for (int code = 0; code < 16; code += 8) {
      const __m256 product = _mm256_mul_ps(_mm256_loadu_ps(c.levels + code), _mm256_set1_ps(scales[i]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.values[i] + code),
                          _mm256_srli_epi32(_mm256_castps_si256(operand_nearest_bf16(product)), 16));
    }
  return t;
}
QLORA_INLINE void decode_pairs8(const PairLevels&, const PairTables& t, const uint8_t* p, int64_t ld,
                                uint32_t* out) {
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 16; ++j) {
      const uint8_t codes = p[i * ld + j];
      out[8 * j + i] = t.values[i][codes >> 4] | t.values[i][codes & 15] << 16;
    }
}

struct WordTable {
  alignas(64) uint32_t levels[2][16];  // bf16 in the lower half
};
QLORA_INLINE WordTable word_table(Vec first, Vec second) {
  WordTable t;
  istore(t.levels[0], pair(first, zero()));
  istore(t.levels[1], pair(second, zero()));
  return t;
}
struct WordPlaces {};
template <int kVectors>
QLORA_INLINE void lookup_words(const WordPlaces&, const WordTable& t, const uint8_t* codes, float* to,
                               int64_t step) {
  for (int i = 0; i < 16 * kVectors; ++i) {
    const uint32_t* levels = t.levels[i / 32];
    const uint32_t word = levels[codes[i] >> 4] | levels[codes[i] & 15] << 16;
    __builtin_memcpy(to + i / 16 * step + i % 16, &word, sizeof(word));
  }
}
QLORA_INLINE IVec lookup_pairs(const WordTable& t, const uint8_t* even, const uint8_t* odd) {
  alignas(64) uint32_t words[16];
  for (int i = 0; i < 16; ++i) {
    const int shift = i % 2 == 0 ? 4 : 0;
    words[i] = t.levels[0][even[i / 2] >> shift & 15] | t.levels[1][odd[i / 2] >> shift & 15] << 16;
  }
  return iload(words);
}

struct PairScales {
  float of[8];
};
struct PairBytes {
  static constexpr int kBits = 8;
  using Tables = PairScales;
};
QLORA_INLINE PairScales pair_tables(const PairBytes&, const float* scales) {
  PairScales t;
  __builtin_memcpy(t.of, scales, sizeof(t.of));
  return t;
}
QLORA_INLINE void decode_pairs8(const PairBytes&, const PairScales& t, const uint8_t* p, int64_t ld,
                                uint32_t* out) {
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 32; j += 8) {
      const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + i * ld + j));
      const __m256 levels = int8_levels(_mm256_cvtepi8_epi32(codes));
      alignas(32) uint32_t bits[8];
      _mm256_store_ps(reinterpret_cast<float*>(bits),
                      operand_nearest_bf16(_mm256_mul_ps(levels, _mm256_set1_ps(t.of[i]))));
      for (int pair = 0; pair < 4; ++pair)
        out[8 * (j / 2 + pair) + i] = bits[2 * pair] >> 16 | bits[2 * pair + 1];
    }
}

// REQUIRES: denormals are flushed.
QLORA_INLINE __m256 dot_pairs8(uint32_t x, const uint32_t* w, __m256 sum) {
  const __m256i upper = _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u));
  const __m256i xs = _mm256_set1_epi32(static_cast<int32_t>(x));
  const __m256i ws = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
  sum = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(xs, upper)),
                        _mm256_castsi256_ps(_mm256_and_si256(ws, upper)), sum);
  return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(xs, 16)),
                         _mm256_castsi256_ps(_mm256_slli_epi32(ws, 16)), sum);
}
