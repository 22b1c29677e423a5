// Whole products of the decode class (decode_rows-inl.h), two outputs in a vector.

constexpr int kDotOutputs = 2, kDotGroups = 1;
constexpr int64_t kDotRows = 4;
constexpr bool kDotAlone = false;  // a row by itself is as one of several

QLORA_INLINE __m256i in_both_halves(const uint8_t* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// The low and high bytes of the levels, in both halves, and the order of bytes that brings words where
// arrange_segment() has their x.
struct DotLevels {
  static constexpr int kBits = 4;
  __m256i low, high, order;
  explicit DotLevels(const WholeLevels& levels) {
    uint8_t bytes[3][16];
    for (int i = 0; i < 16; ++i) {
      bytes[0][i] = static_cast<uint8_t>(levels.words[i] & 255);
      bytes[1][i] = static_cast<uint8_t>((levels.words[i] >> 8) & 255);
      bytes[2][i] = static_cast<uint8_t>(i < 8 ? 2 * i : 2 * i - 15);
    }
    low = in_both_halves(bytes[0]);
    high = in_both_halves(bytes[1]);
    order = in_both_halves(bytes[2]);
  }
};

// Sixteen bytes of each of two outputs.
QLORA_INLINE __m256i two_rows(const uint8_t* codes, int64_t ld) {
  const auto row = [&](int64_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i)); };
  return _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(ld), 1);
}

QLORA_INLINE void levels_of_two(const DotLevels& t, const uint8_t* codes, int64_t ld, __m256i* w) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i bytes = _mm256_shuffle_epi8(two_rows(codes, ld), t.order);
  const __m256i even = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble),
                odd = _mm256_and_si256(bytes, nibble);
  const __m256i even_low = _mm256_shuffle_epi8(t.low, even), even_high = _mm256_shuffle_epi8(t.high, even);
  const __m256i odd_low = _mm256_shuffle_epi8(t.low, odd), odd_high = _mm256_shuffle_epi8(t.high, odd);
  w[0] = _mm256_unpacklo_epi8(even_low, even_high);
  w[1] = _mm256_unpackhi_epi8(even_low, even_high);
  w[2] = _mm256_unpacklo_epi8(odd_low, odd_high);
  w[3] = _mm256_unpackhi_epi8(odd_low, odd_high);
}

// A segment of two outputs: eight elements of each in a vector.
QLORA_INLINE void levels_of_segment(const DotLevels& t, const uint8_t* codes, int64_t ld, __m256i (&w)[8]) {
  levels_of_two(t, codes, ld, w);
  levels_of_two(t, codes + 16, ld, w + 4);
}
QLORA_INLINE void levels_of_segment(const DotBytes&, const uint8_t* codes, int64_t ld, __m256i (&w)[8]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m256i bytes = two_rows(codes + 16 * i, ld);
    w[2 * i] = _mm256_srai_epi16(_mm256_unpacklo_epi8(bytes, bytes), 8);
    w[2 * i + 1] = _mm256_srai_epi16(_mm256_unpackhi_epi8(bytes, bytes), 8);
  }
}

// sums[r][output], of R rows and G groups of outputs. Half o of a vector of sums is output o, and its lanes
// are the rows.
template <int R, int G, class Levels>
QLORA_INLINE void dot_segments(const Levels& t, const DotWeights& w, const DotRows& x, float* sums) {
  static_assert(G == 1 && R <= 4);
  __m256 s[kSums];
#pragma GCC unroll 4
  for (int j = 0; j < kSums; ++j) s[j] = _mm256_setzero_ps();
  const uint8_t *codes = w.codes, *rows = x.segments;
  const float* x_scales = x.scales;
  for (int64_t i = 0; i < w.segments;
       ++i, codes += kSegment * Levels::kBits / 8, rows += R * kArranged, x_scales += R) {
    __m256i levels[8], whole[R];
    levels_of_segment(t, codes, w.ld, levels);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const uint8_t* p = rows + r * kArranged;
      whole[r] = _mm256_madd_epi16(levels[0], in_both_halves(p));
#pragma GCC unroll 8
      for (int j = 1; j < 8; ++j)
        whole[r] = _mm256_add_epi32(whole[r], _mm256_madd_epi16(levels[j], in_both_halves(p + kPiece * j)));
    }
    // Lanes of rows that are not there repeat others.
    const __m256i first = _mm256_hadd_epi32(whole[0], whole[R > 1 ? 1 : 0]);
    __m256i last = first;
    if constexpr (R > 2) last = _mm256_hadd_epi32(whole[2], whole[R - 1]);
    const __m256i all = _mm256_hadd_epi32(first, last);
    const __m256 scale = _mm256_set_m128(_mm_set1_ps(w.scales[w.scales_ld + i]), _mm_set1_ps(w.scales[i]));
    const __m256 x_scale = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(x_scales));
    const __m256 sum = _mm256_fmadd_ps(_mm256_mul_ps(scale, x_scale), _mm256_cvtepi32_ps(all), s[0]);
    // The sum that is next comes first.
    s[0] = s[1];
    s[1] = s[2];
    s[2] = s[3];
    s[3] = sum;
  }
  for (int64_t i = w.segments % kSums; i > 0; --i) {
    const __m256 last = s[3];
    s[3] = s[2];
    s[2] = s[1];
    s[1] = s[0];
    s[0] = last;
  }
  float y[8];
  _mm256_storeu_ps(y, _mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3])));
  for (int r = 0; r < R; ++r)
    for (int o = 0; o < kDotOutputs; ++o) sums[r * kDotOutputs + o] = y[4 * o + r];
}
