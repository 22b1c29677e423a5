// Whole products of the decode class (decode_rows-inl.h), four outputs in a vector, with AVX512-VNNI: a
// permutation looks up 32 levels, vpdpwssd multiplies and adds as many.

constexpr int kDotOutputs = 4, kDotGroups = 2;
constexpr int64_t kDotRows = 8;
constexpr bool kDotAlone = true;

// The levels twice: a lookup takes five bits, the fifth of which is another code's.
struct DotLevels {
  static constexpr int kBits = 4;
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

// A segment of four outputs: eight elements of each in a vector.
QLORA_INLINE void levels_of_segment(const DotLevels& t, const uint8_t* codes, int64_t ld, __m512i (&w)[8]) {
  levels_of_four(t, codes, ld, w);
  levels_of_four(t, codes + 16, ld, w + 4);
}
QLORA_INLINE void levels_of_segment(const DotBytes&, const uint8_t* codes, int64_t ld, __m512i (&w)[8]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i bytes = four_rows(codes + 16 * i, ld);
    w[2 * i] = _mm512_srai_epi16(_mm512_unpacklo_epi8(bytes, bytes), 8);
    w[2 * i + 1] = _mm512_srai_epi16(_mm512_unpackhi_epi8(bytes, bytes), 8);
  }
}

// Of four vectors, the sums of every quarter: those of one quarter in the same quarter of the result, in the
// order of the vectors.
QLORA_INLINE __m512i sums_of_quarters(const __m512i (&v)[4]) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

// Of two vectors, quarters 0 and 1, and 2 and 3, added: two of the first, two of the second.
QLORA_INLINE __m512i join_quarters(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

// Several rows: of four pairs of a row and a group of outputs (r, g), which come in the order of r * G + g,
// quarter o of a vector of sums is output o of each.

// The scales of G groups of outputs as such a vector has them.
template <int G>
QLORA_INLINE __m512 group_scales(const float* p, int64_t ld) {
  static_assert(G == 1 || G == 2);
  constexpr unsigned kLanesOfGroup = G == 1 ? 0x000f : 0x0005;
  __m512 v = _mm512_setzero_ps();
#pragma GCC unroll 4
  for (int o = 0; o < kDotOutputs; ++o)
#pragma GCC unroll 2
    for (int g = 0; g < G; ++g)
      v = _mm512_mask_broadcastss_ps(v, static_cast<__mmask16>(kLanesOfGroup << g << 4 * o),
                                     _mm_load_ss(p + (4 * g + o) * ld));
  return v;
}
// Those of the rows of vector i.
template <int G>
QLORA_INLINE __m512 row_scales(const float* p, int i) {
  const __m512i rows = _mm512_set4_epi32(3 / G, 2 / G, 1 / G, 0);
  return _mm512_permutexvar_ps(rows, _mm512_castps128_ps512(_mm_loadu_ps(p + 4 / G * i)));
}

// Whole products of a segment of one row and G groups of outputs, four lanes for each output.
template <int G>
QLORA_INLINE void dot_row(const __m512i (&levels)[G][8], const uint8_t* row, __m512i* whole) {
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) whole[g] = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    const __m512i words =
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + kPiece * j)));
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) whole[g] = _mm512_dpwssd_epi32(whole[g], levels[g][j], words);
  }
}

// sums[r][output], of R rows and G groups of outputs.
template <int R, int G, class Levels>
QLORA_INLINE void dot_segments(const Levels& t, const DotWeights& w, const DotRows& x, float* sums) {
  constexpr int kCodes = kSegment * Levels::kBits / 8;  // bytes of a segment
  static_assert(R > 1);
  constexpr int kPairs = R * G, kVectors = (kPairs + 3) / 4;
  alignas(64) float s[kSums][kVectors][16] = {};
  const uint8_t *codes = w.codes, *rows = x.segments, *ahead = w.ahead;
  const float* x_scales = x.scales;
  for (int64_t i = 0; i < w.segments; ++i, codes += kCodes, rows += R * kArranged, x_scales += R) {
#pragma GCC unroll 4
    for (int line = 0; line < kCodes * kDotOutputs * G / 64; ++line, ahead += 64)
      __builtin_prefetch(ahead, 0, 2);
    __m512i levels[G][8];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) levels_of_segment(t, codes + 4 * g * w.ld, w.ld, levels[g]);
    const __m512 scales = group_scales<G>(w.scales + i, w.scales_ld);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      __m512i whole[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; j += G) {
        const int row = (4 * v + j) / G;
        if (row < R)
          dot_row<G>(levels, rows + row * kArranged, whole + j);
        else
          whole[j] = whole[j + G - 1] = _mm512_setzero_si512();
      }
      float* sum = s[i % kSums][v];
      _mm512_store_ps(sum, _mm512_fmadd_ps(_mm512_mul_ps(scales, row_scales<G>(x_scales, v)),
                                           _mm512_cvtepi32_ps(sums_of_quarters(whole)), _mm512_load_ps(sum)));
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    alignas(64) float y[16];
    const auto of = [&](int j) { return _mm512_load_ps(s[j][v]); };
    _mm512_store_ps(y, _mm512_add_ps(_mm512_add_ps(of(0), of(1)), _mm512_add_ps(of(2), of(3))));
    for (int pair = 4 * v; pair < kPairs && pair < 4 * v + 4; ++pair)
      for (int o = 0; o < kDotOutputs; ++o) sums[pair * kDotOutputs + o] = y[4 * o + pair % 4];
  }
}

// For tiles (decode_tiles-inl.h): the bytes of the levels of a 4-bit format, each four times. A lookup takes
// six bits, of which two are another code's.
struct LevelBytes {
  static constexpr int kBits = 4;
  __m512i upper, lower;
  explicit LevelBytes(const WholeLevels& levels) {
    alignas(64) uint8_t bytes[2][64];
    for (int i = 0; i < 64; ++i) {
      bytes[0][i] = static_cast<uint8_t>(levels.words[i % 16] >> 8);
      bytes[1][i] = static_cast<uint8_t>(levels.words[i % 16]);
    }
    upper = _mm512_load_si512(bytes[0]);
    lower = _mm512_load_si512(bytes[1]);
  }
};
// Those of a segment of 32 bytes of codes: of their upper halves, then of the lower ones.
QLORA_INLINE void level_bytes(const LevelBytes& t, const uint8_t* codes, uint8_t* upper, uint8_t* lower) {
  const __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  const __m512i places = _mm512_mask_srli_epi16(twice, 0x0000ffff, twice, 4);
  _mm512_store_si512(upper, _mm512_permutexvar_epi8(places, t.upper));
  _mm512_store_si512(lower, _mm512_permutexvar_epi8(places, t.lower));
}
