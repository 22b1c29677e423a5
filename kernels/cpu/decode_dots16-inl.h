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

QLORA_INLINE __m512 four_scales(const float* p, int64_t ld) {
  __m512 v = _mm512_set1_ps(p[0]);
  v = _mm512_mask_broadcastss_ps(v, 0x00f0, _mm_load_ss(p + ld));
  v = _mm512_mask_broadcastss_ps(v, 0x0f00, _mm_load_ss(p + 2 * ld));
  return _mm512_mask_broadcastss_ps(v, 0xf000, _mm_load_ss(p + 3 * ld));
}

// One row: codes are read two segments of an output at a time, as they lie, and whole sums brought together
// afterwards: in every quarter of a vector those of one output.

// What is asked for ahead of its use: as much as memory takes to answer, into the second cache, because four
// rows of codes may not fit the first one.
constexpr int64_t kAheadAlone = 32768;

// Of scales times scales of x of sixteen segments: four vectors, quarter q of vector v is segment 4 q + v of
// all four outputs.
QLORA_INLINE int64_t dot_room(int64_t segments) {
  return (segments + 15) / 16 * 64 + 16;
}
QLORA_INLINE const float* scales_of(const float* room, int64_t segment) {
  return room + segment / 16 * 64 + segment % 4 * 16 + segment / 4 % 4 * 4;
}
QLORA_INLINE void multiply_scales(const float* scales, int64_t ld, const float* x, int64_t segments,
                                  float* room) {
  for (int64_t i = 0; i < segments; i += 16, room += 64) {
    const __mmask16 some = lanes_below(segments - i < 16 ? segments - i : 16);
    const __m512 of_x = _mm512_maskz_loadu_ps(some, x + i);
    const auto of = [&](int64_t output) {
      return _mm512_mul_ps(_mm512_maskz_loadu_ps(some, scales + output * ld + i), of_x);
    };
    const __m512 a = of(0), b = of(1), c = of(2), d = of(3);
    const __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b)),
                  cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
    const __m512d ba = _mm512_castps_pd(_mm512_unpackhi_ps(a, b)),
                  dc = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
    _mm512_storeu_pd(room, _mm512_unpacklo_pd(ab, cd));
    _mm512_storeu_pd(room + 16, _mm512_unpackhi_pd(ab, cd));
    _mm512_storeu_pd(room + 32, _mm512_unpacklo_pd(ba, dc));
    _mm512_storeu_pd(room + 48, _mm512_unpackhi_pd(ba, dc));
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

// Of two outputs, quarters 0 and 1, and 2 and 3, added: two of the first, two of the second. Of two segments,
// whose halves are quarters: segments 0 and 1 of each.
QLORA_INLINE __m512i join_outputs(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

// s += scales times whole sums of one segment, in every quarter of an output.
QLORA_INLINE __m512 add_segment(__m512 s, const float* scales, __m512i sums) {
  const __m512i quarters = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const __m512 of_output = _mm512_permutexvar_ps(quarters, _mm512_castps128_ps512(_mm_loadu_ps(scales)));
  return _mm512_fmadd_ps(of_output, _mm512_cvtepi32_ps(sums), s);
}

QLORA_INLINE void store_four(__m512 s, float* sums) {
  __m512 v = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
  _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, v)));
}

// One row and four outputs: segment i of the row and, of a pair, the next one; s goes on.
template <bool kPair>
QLORA_INLINE __m512 dot_two_segments(const DotLevels& t, const DotWeights& w, const DotRows& x, int64_t i,
                                     __m512 s) {
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
  const __m512i ab = join_outputs(sums[0], sums[1]), cd = join_outputs(sums[2], sums[3]);
  s = add_segment(s, scales_of(w.room, i), _mm512_shuffle_i32x4(ab, cd, 0x88));
  return kPair ? add_segment(s, scales_of(w.room, i + 1), _mm512_shuffle_i32x4(ab, cd, 0xdd)) : s;
}

// The same of 8-bit codes, a segment at a time.
QLORA_INLINE __m512 dot_segment(const DotWeights& w, const DotRows& x, int64_t i, __m512 s) {
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
  const __m512i ab = join_outputs(sums[0], sums[1]), cd = join_outputs(sums[2], sums[3]);
  return add_segment(s, scales_of(w.room, i), join_outputs(ab, cd));
}

// sums[output], of four outputs.
QLORA_INLINE void dot_four(const DotBytes&, const DotWeights& w, const DotRows& x, float* sums) {
  multiply_scales(w.scales, w.scales_ld, x.scales, w.segments, w.room);
  __m512 s = _mm512_setzero_ps();
  for (int64_t i = 0; i < w.segments; ++i) s = dot_segment(w, x, i, s);
  store_four(s, sums);
}
QLORA_INLINE void dot_four(const DotLevels& t, const DotWeights& w, const DotRows& x, float* sums) {
  multiply_scales(w.scales, w.scales_ld, x.scales, w.segments, w.room);
  __m512 s = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 2 <= w.segments; i += 2) s = dot_two_segments<true>(t, w, x, i, s);
  if (i < w.segments) s = dot_two_segments<false>(t, w, x, i, s);
  store_four(s, sums);
}

// sums[r][output], of R rows and G groups of outputs.
template <int R, int G, class Levels>
QLORA_INLINE void dot_segments(const Levels& t, DotWeights w, const DotRows& x, float* sums) {
  constexpr int kCodes = kSegment * Levels::kBits / 8;  // bytes of a segment
  if constexpr (R == 1) {
    for (int g = 0; g < G; ++g, w.codes += kDotOutputs * w.ld, w.scales += kDotOutputs * w.scales_ld)
      dot_four(t, w, x, sums + kDotOutputs * g);
    return;
  }
  __m512 s[G][R];
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) s[g][r] = _mm512_setzero_ps();
  const uint8_t *codes = w.codes, *rows = x.segments, *ahead = w.ahead;
  const float* x_scales = x.scales;
  for (int64_t i = 0; i < w.segments; ++i, codes += kCodes, rows += R * kArranged, x_scales += R) {
#pragma GCC unroll 4
    for (int line = 0; line < kCodes * kDotOutputs * G / 64; ++line, ahead += 64)
      __builtin_prefetch(ahead, 0, 2);
    __m512i levels[G][8];
    __m512 scales[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      levels_of_segment(t, codes + 4 * g * w.ld, w.ld, levels[g]);
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
    for (int g = 0; g < G; ++g) store_four(s[g][r], sums + (r * G + g) * kDotOutputs);
}
