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

// One row: codes are read as they lie, two segments of an output at a time where they are of four bits, and
// whole sums of four segments brought together: quarter j of a vector has those of segment j, of four
// outputs.

// What is asked for ahead of its use: as much as memory takes to answer, into the second cache, because four
// rows of codes may not fit the first one.
constexpr int64_t kAheadAlone = 32768;

// Of scales times scales of x: for every four segments a vector, as the whole sums have it.
QLORA_INLINE int64_t dot_room(int64_t segments) {
  return (segments + 15) / 16 * 64;
}
QLORA_INLINE void multiply_scales(const DotWeights& w, const float* x) {
  float* room = w.room;
  for (int64_t i = 0; i < w.segments; i += 16, room += 64) {
    const __mmask16 some = lanes_below(w.segments - i < 16 ? w.segments - i : 16);
    const __m512 of_x = _mm512_maskz_loadu_ps(some, x + i);
    const auto of = [&](int64_t output) {
      return _mm512_mul_ps(_mm512_maskz_loadu_ps(some, w.scales + output * w.scales_ld + i), of_x);
    };
    const __m512 a = of(0), b = of(1), c = of(2), d = of(3);
    const __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b)),
                  cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
    const __m512d ba = _mm512_castps_pd(_mm512_unpackhi_ps(a, b)),
                  dc = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
    // Quarter q of the vector j: segment 4 q + j.
    const __m512d of_segment[4] = {_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd),
                                   _mm512_unpacklo_pd(ba, dc), _mm512_unpackhi_pd(ba, dc)};
    const auto quarters = [&](int j, bool upper) {
      return upper ? _mm512_shuffle_f64x2(of_segment[j], of_segment[j + 1], 0xee)
                   : _mm512_shuffle_f64x2(of_segment[j], of_segment[j + 1], 0x44);
    };
#pragma GCC unroll 2
    for (int upper = 0; upper < 2; ++upper) {
      const __m512d first = quarters(0, upper == 1), last = quarters(2, upper == 1);
      _mm512_storeu_pd(room + 32 * upper, _mm512_shuffle_f64x2(first, last, 0x88));
      _mm512_storeu_pd(room + 32 * upper + 16, _mm512_shuffle_f64x2(first, last, 0xdd));
    }
  }
}

// Whole sums of an output, each lane those of eight elements.
QLORA_INLINE __m512i dot_pair(const DotLevels& t, __m512i codes, const __m512i* x) {
  const auto levels = [&](__m512i at) { return _mm512_permutexvar_epi16(at, t.words); };
  __m512i sum = _mm512_dpwssd_epi32(_mm512_setzero_si512(), levels(_mm512_srli_epi16(codes, 4)), x[0]);
  sum = _mm512_dpwssd_epi32(sum, levels(_mm512_srli_epi16(codes, 12)), x[1]);
  sum = _mm512_dpwssd_epi32(sum, levels(codes), x[2]);
  return _mm512_dpwssd_epi32(sum, levels(_mm512_srli_epi16(codes, 8)), x[3]);
}

// Of four outputs, two segments from i on, or the last one (what then stands in the upper half means
// nothing): the sums of a quarter, which is half a segment.
template <bool kPair>
QLORA_INLINE __m512i sums_of_pair(const DotLevels& t, const DotWeights& w, const DotRows& x, int64_t i) {
  const uint8_t *codes = w.codes + i / 2 * 64, *row = x.segments + i * kArranged;
  const uint8_t* ahead = w.codes + kAheadAlone + i / 2 * 256;
  __m512i of_x[4], sums[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) of_x[j] = _mm512_loadu_si512(row + 64 * j);
#pragma GCC unroll 4
  for (int o = 0; o < 4; ++o) {
    __builtin_prefetch(ahead + 64 * o, 0, 2);
    const uint8_t* p = codes + o * w.ld;
    sums[o] = dot_pair(t, kPair ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi32(0x00ff, p), of_x);
  }
  return sums_of_quarters(sums);
}
template <int kSegments>
QLORA_INLINE __m512i whole_sums(const DotLevels& t, const DotWeights& w, const DotRows& x, int64_t i) {
  __m512i last = _mm512_setzero_si512();
  if constexpr (kSegments > 2) last = sums_of_pair<kSegments == 4>(t, w, x, i + 2);
  return join_quarters(sums_of_pair<(kSegments > 1)>(t, w, x, i), last);
}

// The same of 8-bit codes, a segment at a time.
QLORA_INLINE __m512i sums_of_segment(const DotWeights& w, const DotRows& x, int64_t i) {
  const uint8_t *codes = w.codes + 64 * i, *row = x.segments + i * kArranged;
  const uint8_t* ahead = w.codes + kAheadAlone + 256 * i;
  const __m512i first = _mm512_loadu_si512(row), last = _mm512_loadu_si512(row + 64);
  __m512i sums[4];
#pragma GCC unroll 4
  for (int o = 0; o < 4; ++o) {
    __builtin_prefetch(ahead + 64 * o, 0, 2);
    const auto* p = reinterpret_cast<const __m256i*>(codes + o * w.ld);
    sums[o] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_cvtepi8_epi16(_mm256_loadu_si256(p)), first);
    sums[o] = _mm512_dpwssd_epi32(sums[o], _mm512_cvtepi8_epi16(_mm256_loadu_si256(p + 1)), last);
  }
  return sums_of_quarters(sums);
}
template <int kSegments>
QLORA_INLINE __m512i whole_sums(const DotBytes&, const DotWeights& w, const DotRows& x, int64_t i) {
  __m512i s[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) s[j] = j < kSegments ? sums_of_segment(w, x, i + j) : _mm512_setzero_si512();
  return join_quarters(join_quarters(s[0], s[1]), join_quarters(s[2], s[3]));
}

template <int kSegments, class Levels>
QLORA_INLINE __m512 add_segments(const Levels& t, const DotWeights& w, const DotRows& x, int64_t i,
                                 __m512 s) {
  return _mm512_fmadd_ps(_mm512_loadu_ps(w.room + 16 * (i / kSums)),
                         _mm512_cvtepi32_ps(whole_sums<kSegments>(t, w, x, i)), s);
}

// sums[output], of four outputs.
template <class Levels>
QLORA_INLINE void dot_four(const Levels& t, const DotWeights& w, const DotRows& x, float* sums) {
  multiply_scales(w, x.scales);
  __m512 s = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 4 <= w.segments; i += 4) s = add_segments<4>(t, w, x, i, s);
  if (w.segments - i == 3) s = add_segments<3>(t, w, x, i, s);
  if (w.segments - i == 2) s = add_segments<2>(t, w, x, i, s);
  if (w.segments - i == 1) s = add_segments<1>(t, w, x, i, s);
  const __m256 low = _mm512_castps512_ps256(s), high = _mm512_extractf32x8_ps(s, 1);
  const auto both = [](__m256 v) {
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  };
  _mm_storeu_ps(sums, _mm_add_ps(both(low), both(high)));
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
QLORA_INLINE void dot_segments(const Levels& t, DotWeights w, const DotRows& x, float* sums) {
  constexpr int kCodes = kSegment * Levels::kBits / 8;  // bytes of a segment
  constexpr int kPairs = R * G, kVectors = (kPairs + 3) / 4;
  if constexpr (R == 1) {
    for (int g = 0; g < G; ++g, w.codes += kDotOutputs * w.ld, w.scales += kDotOutputs * w.scales_ld)
      dot_four(t, w, x, sums + kDotOutputs * g);
    return;
  }
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
