// The decode class (Numerics::decode): y[rows, out] = x Wᵀ from codes in whole numbers.
//
// A segment is 64 values of k, which share one absmax. Its levels are rounded to whole numbers of at most
// kWhole, of one scale for the format (8-bit codes are whole numbers already), and its x likewise, of a scale
// for the segment. An output has four sums in f32, and sum i % 4 takes segment i:
//   sum += absmax * (scale of levels * scale of x) * f32(whole sum of the segment)
//   y = (sum 0 + sum 1) + (sum 2 + sum 3)
// Whole sums are exact in 32 bits, in any order, and segments run in order, so that the bits of a row depend
// on nothing but the row and the weight.
//
// Error against f64, with L = the largest |level| and X_s = the largest |x| of segment s:
//   |y - exact| <= 1.01 L * sum over s of
//                  absmax_s (2^-13.5 (sum |x_i| + 64 X_s) + 2^-22 (segments + 16) sum |x_i|)
// (rounding levels and x to whole numbers, of 8-bit codes x alone; f32 sums), where X_s is above 1e-30: what
// is smaller counts as zero. A row with an infinity or NaN gives NaN.

// The largest of eight lanes, in all of them.
QLORA_INLINE __m256 largest_everywhere(__m256 v) {
  v = _mm256_max_ps(v, _mm256_permute2f128_ps(v, v, 1));
  v = _mm256_max_ps(v, _mm256_shuffle_ps(v, v, 0x4e));
  return _mm256_max_ps(v, _mm256_shuffle_ps(v, v, 0xb1));
}

// Sixteen words: those at even places, then those at odd ones.
QLORA_INLINE __m256i evens_then_odds(__m256i v) {
  const __m256i split =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(v, split), 0xd8);
}

// Sixteen values times `factor` as whole numbers.
QLORA_INLINE __m256i whole_sixteen(const float* x, __m256 factor) {
  const __m256i v = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factor)),
                                       _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), factor)));
  return _mm256_permute4x64_epi64(v, 0xd8);
}

// Rounds half a segment and writes its pieces, for 4-bit codes.
QLORA_INLINE void arrange_half(const float* x, __m256 factor, const Place& to, int half) {
  const __m256i first = evens_then_odds(whole_sixteen(x, factor)),
                last = evens_then_odds(whole_sixteen(x + 16, factor));
  const __m256i pieces[2] = {evens_then_odds(_mm256_permute2x128_si256(first, last, 0x20)),
                             evens_then_odds(_mm256_permute2x128_si256(first, last, 0x31))};
  uint8_t* out = to.at + half * to.half;
  for (int i = 0; i < 2; ++i, out += 2 * to.piece) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(pieces[i]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + to.piece), _mm256_extracti128_si256(pieces[i], 1));
  }
}

// What values of a segment are multiplied by before they are rounded, and what undoes it, the scale of levels
// included.
struct Rounding {
  __m256 factor;
  float scale;
};
QLORA_INLINE Rounding rounding_of(const float* x, float level_scale) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 top = _mm256_setzero_ps(), poison = _mm256_setzero_ps();
  for (int i = 0; i < kSegment; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    top = _mm256_max_ps(top, _mm256_andnot_ps(sign, v));
    poison = _mm256_fmadd_ps(v, _mm256_setzero_ps(), poison);  // NaN if any is not finite
  }
  const float size = _mm256_cvtss_f32(largest_everywhere(top));
  float bad[8], sum = 0;
  _mm256_storeu_ps(bad, poison);
  for (float b : bad) sum += b;
  // Below the factor's range everything is as good as zero.
  return {_mm256_set1_ps(size > 1e-30f ? static_cast<float>(kWhole) / size : 0.0f),
          size * (1.0f / kWhole) * level_scale + sum};
}

// Rounds one segment of x, for codes of kBits. Returns the scale that undoes it.
template <int kBits>
QLORA_INLINE float round_segment(const float* x, float level_scale, const Place& to) {
  const Rounding rounding = rounding_of(x, level_scale);
  if constexpr (kBits == 8) {
    for (int i = 0; i < kSegment; i += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.at + 2 * i), whole_sixteen(x + i, rounding.factor));
  } else {
    arrange_half(x, rounding.factor, to, 0);
    arrange_half(x + 32, rounding.factor, to, 1);
  }
  return rounding.scale;
}

// One task: its x is rounded, its weights are those of outputs [first, ...) of a term, with a scale a
// segment.
template <class Levels>
struct DecodeJob {
  const DecodeArgs& a;
  const DecodeTerm& term;
  const Levels& levels;
  const float* scales;  // [outputs of the task][segments]
  int64_t first;
  // For every group of up to kDotRows rows: DotRows.
  const uint8_t* x;
  const float* x_scales;
};

// What is asked for ahead of its use: two passes of outputs, or as much as memory takes to answer.
constexpr int64_t kAhead = 8192;

// `count` outputs from `column` on, of kWide: all, or one in the place of all.
template <int kWide, class Levels>
QLORA_INLINE DotWeights weights_of(const DecodeJob<Levels>& job, int64_t column, int count) {
  const int64_t segments = job.term.w.cols / kSegment, bytes = job.term.w.cols * Levels::kBits / 8;
  const uint8_t* codes = job.term.w.data + column * bytes;
  return {.codes = codes,
          .ld = count == kWide ? bytes : 0,
          .scales = job.scales + (column - job.first) * segments,
          .scales_ld = count == kWide ? segments : 0,
          .segments = segments,
          .ahead = codes + larger(kAhead, 2 * kWide * bytes)};
}
template <class Levels>
QLORA_INLINE DotRows rows_of(const DecodeJob<Levels>& job, int64_t row) {
  const int64_t segments = job.term.w.cols / kSegment;
  return {job.x + row * segments * kArranged, job.x_scales + row * segments};
}
QLORA_INLINE void put(bool add, const float* sums, int count, float* y) {
  for (int c = 0; c < count; ++c) y[c] = add ? y[c] + sums[c] : sums[c];
}

// R rows from `row` on times `count` outputs from `column` on: all of G groups, or one by itself.
template <int R, int G, class Levels>
QLORA_INLINE void decode_pass(const DecodeJob<Levels>& job, int64_t row, int64_t column, int count) {
  constexpr int kWide = G * kDotOutputs;
  float sums[R * kWide];
  dot_segments<R, G>(job.levels, weights_of<kWide>(job, column, count), rows_of(job, row), sums);
  for (int r = 0; r < R; ++r)
    put(job.a.add, sums + r * kWide, count, job.term.y + (row + r) * job.term.w.rows + column);
}

// One row times `outputs` outputs from each of S places on, where a row by itself goes its own way.
template <int S, class Levels>
static void decode_alone(const DecodeArgs& a, const DecodeTerm& term, const Levels& levels,
                         const float* const (&scales)[S], const DotRows& x, int64_t row,
                         const int64_t (&first)[S], int64_t outputs) {
  const int64_t segments = term.w.cols / kSegment, bytes = term.w.cols * Levels::kBits / 8;
  for (int64_t c = 0; c < outputs;) {
    Alone<S> w;
    float sums[S][16], *y[S];
    for (int s = 0; s < S; ++s) {
      w.codes[s] = term.w.data + (first[s] + c) * bytes;
      w.scales[s] = scales[s] + c * segments;
      y[s] = sums[s];
    }
    const int count = dot_alone(levels, w, x, segments, outputs - c, y);
    for (int s = 0; s < S; ++s) put(a.add, sums[s], count, term.y + row * term.w.rows + first[s] + c);
    c += count;
  }
}

template <int R, class Levels>
static void decode_block(const DecodeJob<Levels>& job, int64_t row, int64_t begin, int64_t end) {
  if constexpr (R == 1 && kDotAlone) {
    const float* const scales[1] = {job.scales + (begin - job.first) * (job.term.w.cols / kSegment)};
    decode_alone<1>(job.a, job.term, job.levels, scales, rows_of(job, row), row, {begin}, end - begin);
  } else {
    constexpr int kWide = kDotGroups * kDotOutputs;
    int64_t c = begin;
    for (; c + kWide <= end; c += kWide) decode_pass<R, kDotGroups>(job, row, c, kWide);
    for (; c < end; ++c) decode_pass<R, 1>(job, row, c, 1);
  }
}

template <int R, class Levels>
static void decode_block_of(int64_t rows, const DecodeJob<Levels>& job, int64_t row, int64_t begin,
                            int64_t end) {
  if constexpr (R > 1) {
    if (rows < R) return decode_block_of<R - 1>(rows, job, row, begin, end);
  }
  decode_block<R>(job, row, begin, end);
}

// A scale for every segment of `outputs` outputs from each of S places on, one after another.
template <int S>
static void segment_scales(const Codes& all, const int64_t (&first)[S], int64_t outputs,
                           const float* (&scales)[S]) {
  const int64_t segments = outputs * all.cols / kSegment;
  const int64_t blocks = outputs * all.cols / all.block + 2;  // (of the first and the last a part)
  float *absmax = nullptr, *room = nullptr;
  if (all.absmax == nullptr) absmax = cpu::scratch(cpu::Scratch::absmax, S * blocks);
  if (all.block != kSegment) room = cpu::scratch(cpu::Scratch::segment_scales, S * segments);
  const BlockOf block_of(all.block);
  for (int s = 0; s < S; ++s) {
    const int64_t begin = first[s] * all.cols;
    const Codes w = with_scales_in(all, begin, begin + outputs * all.cols, absmax);
    scales[s] = room != nullptr ? room : w.absmax + begin / kSegment - w.first_block;
    for (int64_t i = 0; i < segments && room != nullptr; ++i)
      *room++ = w.absmax[block_of(begin + i * kSegment) - w.first_block];
    if (absmax != nullptr) absmax += blocks;
  }
}
static const float* segment_scales(const Codes& all, int64_t first, int64_t last) {
  const float* scales[1];
  segment_scales<1>(all, {first}, last - first, scales);
  return scales[0];
}

// Asks for what the scales of outputs [first, last) are made of.
QLORA_INLINE void ask_for_scales(const Codes& w, int64_t first, int64_t last) {
  if (w.absmax != nullptr) return;
  const int64_t begin = first * w.cols / w.block, end = last * w.cols / w.block;
  for (int64_t i = begin; i < end; i += 64) __builtin_prefetch(w.nested->absmax_codes + i, 0, 2);
}

// Whether all codes come in whole segments, of the same levels.
static bool decode_fits(const DecodeArgs& a) {
  for (int64_t i = 0; i < a.count; ++i) {
    const Codes& w = a.terms[i].w;
    if (w.cols % kSegment != 0 || w.block % kSegment != 0 || w.levels != a.terms[0].w.levels) return false;
  }
  return a.count > 0;
}

QLORA_INLINE int64_t eights_of(const DecodeTerm& term) {
  return (term.w.rows + 7) / 8;
}

// How many eights of outputs, of k values each, make a task: equal parts for all threads, of 1 Mi weights
// at most, and of 32 Ki at least, because less is not worth waking a thread for.
QLORA_INLINE int64_t eights_per_task(int64_t eights, int64_t k) {
  const int64_t threads = cpu::task_threads(), rounds = eights * 8 * k / (threads << 20) + 1;
  return larger((eights + threads * rounds - 1) / (threads * rounds), (32768 + 8 * k - 1) / (8 * k));
}

// Eights of outputs whose scales, some two thousand, are found together: they stay in the first cache.
QLORA_INLINE int64_t outputs_at_once(int64_t segments) {
  return larger(1, 2048 / (8 * segments)) * 8;
}

// Where segment i of row r goes, of a group of `rows` whose x begins at x.
template <int kBits>
QLORA_INLINE Place place_of(uint8_t* x, int64_t rows, int64_t r, int64_t i) {
  if constexpr (kDotAlone) {
    if (rows == 1) return place_alone<kBits>(x, i);
  }
  return {x + (i * rows + r) * kArranged, kPiece, kArranged / 2};
}

// Outputs [begin, end) of a term.
template <class Levels>
static void decode_outputs(const DecodeArgs& a, const DecodeTerm& term, const Levels& levels,
                           const uint8_t* x, const float* x_scales, int64_t begin, int64_t end) {
  const int64_t each = outputs_at_once(term.w.cols / kSegment);
  for (int64_t c = begin, next; c < end; c = next) {
    next = smaller(end, c + each);
    const DecodeJob<Levels> job{a, term, levels, segment_scales(term.w, c, next), c, x, x_scales};
    ask_for_scales(term.w, next, next + each);
    for (int64_t row = 0; row < a.rows; row += kDotRows)
      decode_block_of<static_cast<int>(kDotRows)>(a.rows - row, job, row, c, next);
  }
}

// The same of one row, the halves side by side, but for less than thirty-two. Returns where these begin.
template <class Levels>
static int64_t decode_halves(const DecodeArgs& a, const DecodeTerm& term, const Levels& levels,
                             const DotRows& x, int64_t begin, int64_t end) {
  const int64_t half = (end - begin) / 32 * 16, each = outputs_at_once(term.w.cols / kSegment);
  for (int64_t c = 0, next; c < half; c = next) {
    next = smaller(half, c + each);
    const int64_t first[2] = {begin + c, begin + half + c};
    const float* scales[2];
    segment_scales(term.w, first, next - c, scales);
    for (int64_t f : first) ask_for_scales(term.w, f + each, f + 2 * each);
    decode_alone<2>(a, term, levels, scales, x, 0, first, next - c);
  }
  return begin + 2 * half;
}

// Asks for what halves begin with, while x is rounded: where one thread takes all.
static void ask_for_halves(const DecodeArgs& a) {
  for (int64_t i = 0; i < a.count; ++i) {
    const Codes& w = a.terms[i].w;
    const int64_t begins[2] = {0, w.rows / 32 * 16};
    for (int64_t first : begins) {
      const uint8_t* codes = w.data + first * w.cols * w.bits / 8;
      for (int line = 0; line < 8; ++line) __builtin_prefetch(codes + 64 * line, 0, 2);
      ask_for_scales(w, first, smaller(w.rows, first + outputs_at_once(w.cols / kSegment)));
    }
  }
}

// All terms are one set of tasks, and x is rounded once. level_scale: of a whole level. kStreams: places that
// a row by itself reads codes from.
template <int kStreams, class Levels>
static void decode_rows_of(const DecodeArgs& a, const Levels& levels, float level_scale) {
  const int64_t k = a.terms[0].w.cols, segments = k / kSegment;
  if constexpr (kStreams == 2 && kDotAlone) {
    if (a.rows == 1) ask_for_halves(a);
  }
  // (a row by itself goes round; the half of a pair that is not there is read too)
  const int64_t more = segments + kRound;
  float* x_scales = cpu::scratch(cpu::Scratch::packed_x,
                                 a.rows * segments + kSums + (a.rows * segments + more) * (kArranged / 4));
  auto* x = reinterpret_cast<uint8_t*>(x_scales + a.rows * segments + kSums);
  for (int64_t row = 0; row < a.rows; row += kDotRows) {
    const int64_t group = smaller(kDotRows, a.rows - row);
    for (int64_t r = 0; r < group; ++r)
      for (int64_t i = 0; i < segments; ++i)
        x_scales[row * segments + i * group + r] = round_segment<Levels::kBits>(
            a.x + (row + r) * k + i * kSegment, level_scale,
            place_of<Levels::kBits>(x + row * segments * kArranged, group, r, i));
    if constexpr (kDotAlone) {
      if (group == 1) go_round<Levels>(x + row * segments * kArranged, segments);
    }
  }
  int64_t eights = 0;
  for (int64_t i = 0; i < a.count; ++i) eights += eights_of(a.terms[i]);
  parallel(eights, eights_per_task(eights, k), [&](int64_t begin, int64_t end) {
    for (int64_t i = 0, before = 0; i < a.count && before < end; before += eights_of(a.terms[i++])) {
      const DecodeTerm& term = a.terms[i];
      int64_t first = 8 * larger(0, begin - before);
      const int64_t last = smaller(term.w.rows, 8 * (end - before));
      if constexpr (kStreams == 2 && kDotAlone) {
        if (a.rows == 1 && first < last) first = decode_halves(a, term, levels, {x, x_scales}, first, last);
      }
      decode_outputs(a, term, levels, x, x_scales, first, last);
    }
  });
}

// False where codes do not fit: then nothing is written.
template <int kStreams>
static bool decode_rows_from(const DecodeArgs& a) {
  if (!decode_fits(a)) return false;
  if (a.terms[0].w.bits == 8) {
    decode_rows_of<kStreams>(a, DotBytes(), 1.0f / 127);
  } else {
    const WholeLevels whole(a.terms[0].w.levels);
    decode_rows_of<kStreams>(a, DotLevels(whole), whole.scale);
  }
  return true;
}
static bool decode_rows(const DecodeArgs& a) {
  return decode_rows_from<1>(a);
}
static bool decode_rows_halves(const DecodeArgs& a) {
  return decode_rows_from<2>(a);
}
