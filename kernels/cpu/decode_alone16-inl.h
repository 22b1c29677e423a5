// One row of the decode class by itself, with AVX512-VNNI: codes are read as they lie, one output after
// another, as one stream, or as S = 2 from two places of a task that are far apart. Which memory answers
// faster is the processor's (best512.cpp): a Xeon one stream that is asked for ahead (16 GB/s; four: 11), a
// Zen 4 two that nobody asks for (27 to 30 GB/s; one: 17.6, asked for or not), by loops without a report. A
// line of codes is two segments of four bits, or one of eight; sixteen segments make a vector of whole sums.

constexpr int64_t kAtOnce = 16;  // segments
// Outputs of fewer segments come sixteen together: whole vectors of segments, however many an output has.
QLORA_INLINE bool short_outputs(int64_t segments) {
  return segments < kAtOnce;
}
template <class Levels>
constexpr int kOfLine = 8 / Levels::kBits;  // segments

// ---- one output of every stream

// Holds the codes in a register; of one stream, asks for what is read 3 KiB later. All of it stays where it
// stands in the stream: compilers gather what may be moved (13 GB/s instead of 16 on that Xeon).
template <int S>
QLORA_INLINE __m512i next_line(const uint8_t* codes, __mmask16 some) {
  if constexpr (S == 1) __asm__ volatile("prefetcht0 %0" ::"m"(codes[3072]));
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

// The sums of quarters of four lines of every stream, `at` bytes from its output's first, of which only those
// that have one of `segments` count.
template <bool kAll, int S, class Levels>
QLORA_INLINE void sums_of_lines(const Levels& t, const Alone<S>& w, int64_t at, const uint8_t* x,
                                int64_t segments, __m512i (&quarters)[S]) {
  constexpr int kSegments = kOfLine<Levels>;
  __m512i sums[S][4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i, at += 64, x += kSegments * kArranged) {
    const int64_t left = segments - kSegments * i;
    const bool all = kAll || left >= kSegments;
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s)
      if (all || left > 0)
        sums[s][i] = dot_line(t, next_line<S>(w.codes[s] + at, all ? 0xffff : 0x00ff), x);
      else
        sums[s][i] = _mm512_setzero_si512();
  }
#pragma GCC unroll 2
  for (int s = 0; s < S; ++s) quarters[s] = sums_of_quarters(sums[s]);
}

// Whole sums of sixteen segments, or of the last ones.
template <bool kAll, int S>
QLORA_INLINE void whole_sums(const DotLevels& t, const Alone<S>& w, int64_t at, const uint8_t* x,
                             int64_t segments, __m512i (&wholes)[S]) {
  const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  __m512i first[S], last[S];
  sums_of_lines<kAll>(t, w, at, x, segments, first);
  sums_of_lines<kAll>(t, w, at + 256, x + 8 * kArranged, segments - 8, last);
#pragma GCC unroll 2
  for (int s = 0; s < S; ++s) wholes[s] = _mm512_permutexvar_epi32(order, join_quarters(first[s], last[s]));
}
template <bool kAll, int S>
QLORA_INLINE void whole_sums(const DotBytes& t, const Alone<S>& w, int64_t at, const uint8_t* x,
                             int64_t segments, __m512i (&wholes)[S]) {
  __m512i q[4][S];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    sums_of_lines<kAll>(t, w, at + 256 * i, x + 4 * i * kArranged, segments - 4 * i, q[i]);
#pragma GCC unroll 2
  for (int s = 0; s < S; ++s)
    wholes[s] = join_quarters(join_quarters(q[0][s], q[1][s]), join_quarters(q[2][s], q[3][s]));
}

// Adds sixteen segments to the four sums of an output of every stream, or the last ones.
template <bool kAll, int S, class Levels>
QLORA_INLINE void add_segments(const Levels& t, const Alone<S>& w, const DotRows& x, int64_t i,
                               int64_t segments, __m128 (&sums)[S]) {
  const __mmask16 some = kAll ? 0xffff : lanes_below(segments - i);
  __m512i wholes[S];
  whole_sums<kAll>(t, w, i * kSegment * Levels::kBits / 8, x.segments + i * kArranged, segments - i, wholes);
#pragma GCC unroll 2
  for (int s = 0; s < S; ++s) {
    const __m512 scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, w.scales[s] + i),
                                       _mm512_maskz_loadu_ps(some, x.scales + i));
    const __m512 whole = _mm512_cvtepi32_ps(wholes[s]);
    const auto add = [&](__m128 a, __m128 b) { sums[s] = _mm_fmadd_ps(a, b, sums[s]); };
    add(_mm512_castps512_ps128(scale), _mm512_castps512_ps128(whole));
    if (kAll || segments - i > 4) add(_mm512_extractf32x4_ps(scale, 1), _mm512_extractf32x4_ps(whole, 1));
    if (kAll || segments - i > 8) add(_mm512_extractf32x4_ps(scale, 2), _mm512_extractf32x4_ps(whole, 2));
    if (kAll || segments - i > 12) add(_mm512_extractf32x4_ps(scale, 3), _mm512_extractf32x4_ps(whole, 3));
  }
}

template <int S, class Levels>
QLORA_INLINE void dot_outputs(const Levels& t, const Alone<S>& w, const DotRows& x, int64_t segments,
                              float* const (&y)[S]) {
  __m128 sums[S];
#pragma GCC unroll 2
  for (int s = 0; s < S; ++s) sums[s] = _mm_setzero_ps();
  int64_t i = 0;
  for (; i + kAtOnce <= segments; i += kAtOnce) add_segments<true>(t, w, x, i, segments, sums);
  if (i < segments) add_segments<false>(t, w, x, i, segments, sums);
#pragma GCC unroll 2
  for (int s = 0; s < S; ++s) {
    float four[kSums];
    _mm_storeu_ps(four, sums[s]);
    *y[s] = (four[0] + four[1]) + (four[2] + four[3]);
  }
}

// ---- sixteen outputs of few segments: their codes are one stream, and x goes round

// Where segment i of a row by itself stands: two and two for 4-bit codes, [pairs][four pieces of a
// half][halves of both].
template <int kBits>
QLORA_INLINE Place place_alone(uint8_t* x, int64_t i) {
  if (kBits == 8) return {x + i * kArranged, kPiece, kArranged / 2};
  return {x + i / 2 * 2 * kArranged + i % 2 * 2 * kPiece, 4 * kPiece, kPiece};
}

// Lines of x until its beginning is the beginning of a line again.
template <class Levels>
QLORA_INLINE int64_t lines_around(int64_t segments) {
  return segments % kOfLine<Levels> == 0 ? segments / kOfLine<Levels> : segments;
}
// Segments of x as it goes round: sixteen are together from every such line on.
template <class Levels>
QLORA_INLINE int64_t segments_around(int64_t segments) {
  return (lines_around<Levels>(segments) - 1) * kOfLine<Levels> + kAtOnce;
}

// Completes x, of which the first segments stand in their places, where outputs come together.
template <class Levels>
QLORA_INLINE void go_round(uint8_t* x, int64_t segments) {
  if (!short_outputs(segments)) return;
  for (int64_t i = segments; i < segments_around<Levels>(segments); ++i) {
    const Place from = place_alone<Levels::kBits>(x, i - segments), to = place_alone<Levels::kBits>(x, i);
    for (int piece = 0; piece < 8; ++piece) {
      const int64_t at = piece / 4 * from.half + piece % 4 * from.piece;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to.at + at),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from.at + at)));
    }
  }
}

// The four sums of an output whose whole sums are given.
QLORA_INLINE __m128 add_wholes(const float* wholes, const float* scales, const float* x_scales,
                               int64_t segments) {
  __m128 s = _mm_setzero_ps();
  int64_t i = 0;
  for (; i + kSums <= segments; i += kSums)
    s = _mm_fmadd_ps(_mm_mul_ps(_mm_loadu_ps(scales + i), _mm_loadu_ps(x_scales + i)),
                     _mm_loadu_ps(wholes + i), s);
  if (i == segments) return s;
  const auto some = static_cast<__mmask8>((1 << (segments - i)) - 1);
  const auto load = [&](const float* p) { return _mm_maskz_loadu_ps(some, p + i); };
  return _mm_mask3_fmadd_ps(_mm_mul_ps(load(scales), load(x_scales)), load(wholes), s, some);
}

template <int S, class Levels>
QLORA_INLINE void dot_sixteen(const Levels& t, const Alone<S>& w, const DotRows& x, int64_t segments,
                              float* const (&y)[S]) {
  constexpr int64_t kLines = kAtOnce / kOfLine<Levels>;
  alignas(64) float wholes[S][16 * kAtOnce];
  const int64_t around = lines_around<Levels>(segments);
  for (int64_t i = 0, line = 0; i < segments; ++i) {
    __m512i whole[S];
    whole_sums<true>(t, w, 64 * kLines * i, x.segments + line * kOfLine<Levels> * kArranged, kAtOnce, whole);
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) _mm512_store_ps(wholes[s] + kAtOnce * i, _mm512_cvtepi32_ps(whole[s]));
    for (line += kLines; line >= around;) line -= around;
  }
  for (int s = 0; s < S; ++s)
    for (int o = 0; o < 16; o += 4) {
      __m128 sums[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const int64_t begin = (o + j) * segments;
        sums[j] = add_wholes(wholes[s] + begin, w.scales[s] + begin, x.scales, segments);
      }
      _mm_storeu_ps(y[s] + o, _mm_hadd_ps(_mm_hadd_ps(sums[0], sums[1]), _mm_hadd_ps(sums[2], sums[3])));
    }
}

// One output of every stream, or sixteen where there are at least as many. Returns how many.
template <int S, class Levels>
QLORA_INLINE int dot_alone(const Levels& t, const Alone<S>& w, const DotRows& x, int64_t segments,
                           int64_t outputs, float* const (&y)[S]) {
  if (short_outputs(segments) && outputs >= 16) {
    dot_sixteen(t, w, x, segments, y);
    return 16;
  }
  dot_outputs(t, w, x, segments, y);
  return 1;
}
