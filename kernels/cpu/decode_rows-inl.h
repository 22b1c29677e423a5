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

// One row times outputs [begin, end), where a row by itself goes its own way.
template <class Levels>
static void decode_alone(const DecodeJob<Levels>& job, int64_t row, int64_t begin, int64_t end) {
  const DotRows x = rows_of(job, row);
  for (int64_t c = begin; c < end;) {
    float sums[16];
    const int count = dot_alone(job.levels, weights_of<1>(job, c, 1), x, end - c, sums);
    put(job.a.add, sums, count, job.term.y + row * job.term.w.rows + c);
    c += count;
  }
}

template <int R, class Levels>
static void decode_block(const DecodeJob<Levels>& job, int64_t row, int64_t begin, int64_t end) {
  if constexpr (R == 1 && kDotAlone) {
    decode_alone(job, row, begin, end);
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

// A scale for every segment of outputs [first, last), one after another.
static const float* segment_scales(const Codes& all, int64_t first, int64_t last) {
  const Codes w = with_scales(all, first, last);
  const int64_t begin = first * w.cols / kSegment, end = last * w.cols / kSegment;
  if (w.block == kSegment) return w.absmax + begin - w.first_block;
  const BlockOf block_of(w.block);
  float* scales = cpu::scratch(cpu::Scratch::segment_scales, end - begin);
  for (int64_t i = begin; i < end; ++i) scales[i - begin] = w.absmax[block_of(i * kSegment) - w.first_block];
  return scales;
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

// All terms are one set of tasks, and x is rounded once. level_scale: of a whole level.
template <class Levels>
static void decode_rows_of(const DecodeArgs& a, const Levels& levels, float level_scale) {
  const int64_t k = a.terms[0].w.cols, segments = k / kSegment;
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
      const Codes& w = a.terms[i].w;
      const int64_t first = 8 * larger(0, begin - before), last = smaller(w.rows, 8 * (end - before));
      for (int64_t c = first, next; c < last; c = next) {
        next = smaller(last, c + outputs_at_once(segments));
        const DecodeJob<Levels> job{a, a.terms[i], levels, segment_scales(w, c, next), c, x, x_scales};
        ask_for_scales(w, next, next + outputs_at_once(segments));
        for (int64_t row = 0; row < a.rows; row += kDotRows)
          decode_block_of<static_cast<int>(kDotRows)>(a.rows - row, job, row, c, next);
      }
    }
  });
}

// False where codes do not fit: then nothing is written.
static bool decode_rows(const DecodeArgs& a) {
  if (!decode_fits(a)) return false;
  if (a.terms[0].w.bits == 8) {
    decode_rows_of(a, DotBytes(), 1.0f / 127);
  } else {
    const WholeLevels whole(a.terms[0].w.levels);
    decode_rows_of(a, DotLevels(whole), whole.scale);
  }
  return true;
}
