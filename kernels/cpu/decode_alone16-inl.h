// One row of the decode class by itself, with AVX512-VNNI: codes are read as they lie. Where an output has
// many segments, one output at a time, because memory answers one stream faster than several; else four, whose
// whole sums come together in one vector.

// What one output at a time begins at.
constexpr int64_t kLongOutput = 16;

// ---- one output. A line of codes is two segments of four bits, or one of eight.

// Asks for what is read 3 KiB later, and holds the codes in a register. Both stay where they stand in the
// stream: compilers gather what may be moved (13 GB/s instead of 16 on a Xeon, of 17 that are to be had).
QLORA_INLINE __m512i next_line(const uint8_t* codes, __mmask16 some) {
  __asm__ volatile("prefetcht0 %0" ::"m"(codes[3072]));
  __m512i line = _mm512_maskz_loadu_epi32(some, codes);
  __asm__ volatile("" : "+v"(line));
  return line;
}

// Whole sums of a line, each lane those of four elements; of two segments, one in each half.
QLORA_INLINE __m512i dot_line(const DotLevels& t, __m512i codes, const uint8_t* x) {
  const auto levels = [&](__m512i at) { return _mm512_permutexvar_epi16(at, t.words); };
  const auto of_x = [&](int i) { return _mm512_loadu_si512(x + 64 * i); };
  __m512i sum = _mm512_dpwssd_epi32(_mm512_setzero_si512(), levels(_mm512_srli_epi16(codes, 4)), of_x(0));
  sum = _mm512_dpwssd_epi32(sum, levels(_mm512_srli_epi16(codes, 12)), of_x(1));
  sum = _mm512_dpwssd_epi32(sum, levels(codes), of_x(2));
  return _mm512_dpwssd_epi32(sum, levels(_mm512_srli_epi16(codes, 8)), of_x(3));
}
QLORA_INLINE __m512i dot_line(const DotBytes&, __m512i codes, const uint8_t* x) {
  const __m512i first = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(codes)),
                last = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(codes, 1));
  const __m512i sum = _mm512_dpwssd_epi32(_mm512_setzero_si512(), first, _mm512_loadu_si512(x));
  return _mm512_dpwssd_epi32(sum, last, _mm512_loadu_si512(x + 64));
}

// The sums of quarters of four lines, of which only those that have one of `segments` count.
template <bool kAll, class Levels>
QLORA_INLINE __m512i sums_of_lines(const Levels& t, const uint8_t* codes, const uint8_t* x,
                                   int64_t segments) {
  constexpr int kOfLine = 8 / Levels::kBits;  // segments
  __m512i sums[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i, codes += 64, x += kOfLine * kArranged) {
    const int64_t left = segments - kOfLine * i;
    const bool all = kAll || left >= kOfLine;
    if (all || left > 0)
      sums[i] = dot_line(t, next_line(codes, all ? 0xffff : 0x00ff), x);
    else
      sums[i] = _mm512_setzero_si512();
  }
  return sums_of_quarters(sums);
}

// Whole sums of sixteen segments, or of the last ones.
template <bool kAll>
QLORA_INLINE __m512i whole_sums(const DotLevels& t, const uint8_t* codes, const uint8_t* x, int64_t segments) {
  const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  const __m512i first = sums_of_lines<kAll>(t, codes, x, segments),
                last = sums_of_lines<kAll>(t, codes + 256, x + 8 * kArranged, segments - 8);
  return _mm512_permutexvar_epi32(order, join_quarters(first, last));
}
template <bool kAll>
QLORA_INLINE __m512i whole_sums(const DotBytes& t, const uint8_t* codes, const uint8_t* x, int64_t segments) {
  __m512i s[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    s[i] = sums_of_lines<kAll>(t, codes + 256 * i, x + 4 * i * kArranged, segments - 4 * i);
  return join_quarters(join_quarters(s[0], s[1]), join_quarters(s[2], s[3]));
}

// Adds sixteen segments to the four sums of an output, or the last ones.
template <bool kAll, class Levels>
QLORA_INLINE __m128 add_segments(const Levels& t, const uint8_t* codes, const float* scales, const DotRows& x,
                                 int64_t i, int64_t segments, __m128 s) {
  const __mmask16 some = kAll ? 0xffff : lanes_below(segments - i);
  const __m512 scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, scales + i),
                                     _mm512_maskz_loadu_ps(some, x.scales + i));
  const __m512 whole = _mm512_cvtepi32_ps(whole_sums<kAll>(t, codes + i * kSegment * Levels::kBits / 8,
                                                           x.segments + i * kArranged, segments - i));
  const auto add = [&](__m128 a, __m128 b) { s = _mm_fmadd_ps(a, b, s); };
  add(_mm512_castps512_ps128(scale), _mm512_castps512_ps128(whole));
  if (kAll || segments - i > 4) add(_mm512_extractf32x4_ps(scale, 1), _mm512_extractf32x4_ps(whole, 1));
  if (kAll || segments - i > 8) add(_mm512_extractf32x4_ps(scale, 2), _mm512_extractf32x4_ps(whole, 2));
  if (kAll || segments - i > 12) add(_mm512_extractf32x4_ps(scale, 3), _mm512_extractf32x4_ps(whole, 3));
  return s;
}

template <class Levels>
QLORA_INLINE float dot_output(const Levels& t, const uint8_t* codes, const float* scales, const DotRows& x,
                              int64_t segments) {
  __m128 s = _mm_setzero_ps();
  int64_t i = 0;
  for (; i + 16 <= segments; i += 16) s = add_segments<true>(t, codes, scales, x, i, segments, s);
  if (i < segments) s = add_segments<false>(t, codes, scales, x, i, segments, s);
  float sums[kSums];
  _mm_storeu_ps(sums, s);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// ---- four outputs. Two segments at a time where codes are of four bits.

// What is asked for ahead of its use: as much as memory takes to answer, into the second cache, because four
// rows of codes may not fit the first one.
constexpr int64_t kAheadOfFour = 32768;

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
  const uint8_t* ahead = w.codes + kAheadOfFour + i / 2 * 256;
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
QLORA_INLINE __m512i whole_sums_of_four(const DotLevels& t, const DotWeights& w, const DotRows& x, int64_t i) {
  __m512i last = _mm512_setzero_si512();
  if constexpr (kSegments > 2) last = sums_of_pair<kSegments == 4>(t, w, x, i + 2);
  return join_quarters(sums_of_pair<(kSegments > 1)>(t, w, x, i), last);
}

// The same of 8-bit codes, a segment at a time.
QLORA_INLINE __m512i sums_of_segment(const DotWeights& w, const DotRows& x, int64_t i) {
  const uint8_t *codes = w.codes + 64 * i, *row = x.segments + i * kArranged;
  const uint8_t* ahead = w.codes + kAheadOfFour + 256 * i;
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
QLORA_INLINE __m512i whole_sums_of_four(const DotBytes&, const DotWeights& w, const DotRows& x, int64_t i) {
  __m512i s[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) s[j] = j < kSegments ? sums_of_segment(w, x, i + j) : _mm512_setzero_si512();
  return join_quarters(join_quarters(s[0], s[1]), join_quarters(s[2], s[3]));
}

template <int kSegments, class Levels>
QLORA_INLINE __m512 add_segments_of_four(const Levels& t, const DotWeights& w, const DotRows& x, int64_t i,
                                 __m512 s) {
  return _mm512_fmadd_ps(_mm512_loadu_ps(w.room + 16 * (i / kSums)),
                         _mm512_cvtepi32_ps(whole_sums_of_four<kSegments>(t, w, x, i)), s);
}

// sums[output], of four outputs.
template <class Levels>
QLORA_INLINE void dot_four(const Levels& t, const DotWeights& w, const DotRows& x, float* sums) {
  multiply_scales(w, x.scales);
  __m512 s = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 4 <= w.segments; i += 4) s = add_segments_of_four<4>(t, w, x, i, s);
  if (w.segments - i == 3) s = add_segments_of_four<3>(t, w, x, i, s);
  if (w.segments - i == 2) s = add_segments_of_four<2>(t, w, x, i, s);
  if (w.segments - i == 1) s = add_segments_of_four<1>(t, w, x, i, s);
  const __m256 low = _mm512_castps512_ps256(s), high = _mm512_extractf32x8_ps(s, 1);
  const auto both = [](__m256 v) {
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  };
  _mm_storeu_ps(sums, _mm_add_ps(both(low), both(high)));
}

// Four outputs of one row.
template <class Levels>
QLORA_INLINE void dot_alone(const Levels& t, const DotWeights& w, const DotRows& x, float* sums) {
  if (w.segments < kLongOutput) return dot_four(t, w, x, sums);
#pragma GCC unroll 1
  for (int o = 0; o < kDotOutputs; ++o)
    sums[o] = dot_output(t, w.codes + o * w.ld, w.scales + o * w.scales_ld, x, w.segments);
}
