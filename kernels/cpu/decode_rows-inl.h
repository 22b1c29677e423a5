// The decode class (Numerics::decode): y[rows, out] = x Wᵀ from 4-bit codes in whole numbers.
//
// A segment is 64 values of k, which share one absmax. Its levels and its x are rounded to whole numbers of
// at most kWhole (15 bits with sign): 16 products of them are one instruction, and their sum over the segment
// is exact in 32 bits, in any order. The sum is scaled in f32 and added to eight accumulators per output:
//   y = sum over segments of absmax * scale of levels * scale of x * (whole sum)
// Segments run in order, so the bits of a row depend on nothing but the row and the weight.
//
// Error against f64, with L = the largest |level| and X_s = the largest |x| of segment s:
//   |y - exact| <= 1.01 L * sum over s of
//                  absmax_s (2^-15 (sum |x_i| + 64 X_s) + 2^-22 (segments + 16) sum |x_i|)
// (rounding levels and x to whole numbers; f32 sums). A row with an infinity or NaN gives NaN.

constexpr int64_t kSegment = 64;
constexpr int kWhole = 16383;  // 8 * kWhole^2 < 2^31: eight products meet in one lane
constexpr int64_t kDecodeRows = 8;

QLORA_INLINE __m256i whole(const float* x, __m256 factor) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factor));
}

// The largest of eight lanes, in all of them.
QLORA_INLINE __m256 largest_everywhere(__m256 v) {
  v = _mm256_max_ps(v, _mm256_permute2f128_ps(v, v, 1));
  v = _mm256_max_ps(v, _mm256_shuffle_ps(v, v, 0x4e));
  return _mm256_max_ps(v, _mm256_shuffle_ps(v, v, 0xb1));
}

// Rounds one segment of x. Its values go out as four vectors, in the order in which codes come out of their
// bytes: even elements of the first and third quarters, of the second and fourth, then the odd ones likewise.
// Returns the scale that undoes the rounding, that of the levels included.
QLORA_INLINE float round_segment(const float* x, float level_scale, int16_t* out) {
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
  const __m256 factor = _mm256_set1_ps(size > 1e-30f ? static_cast<float>(kWhole) / size : 0.0f);
  const __m256i split = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));  // evens of eight, then odds
  for (int quarter = 0; quarter < 4; ++quarter) {
    const float* p = x + 16 * quarter;
    __m256i v = _mm256_packs_epi32(whole(p, factor), whole(p + 8, factor));
    v = _mm256_shuffle_epi8(_mm256_permute4x64_epi64(v, 0xd8), split);
    v = _mm256_permute4x64_epi64(v, 0xd8);
    int16_t* even = out + (quarter & 1) * 16 + (quarter >> 1) * 8;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(even), _mm256_castsi256_si128(v));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(even + 32), _mm256_extracti128_si256(v, 1));
  }
  return size * (1.0f / kWhole) * level_scale + sum;
}

// The levels as whole numbers, in tables of their low and high bytes.
struct WholeLevels {
  __m256i low, high;
  float scale;  // level = scale * whole number
  explicit WholeLevels(const float* levels) {
    float top = 0;
    for (int i = 0; i < 16; ++i) top = __builtin_fmaxf(top, __builtin_fabsf(levels[i]));
    const float factor = top > 0 ? static_cast<float>(kWhole) / top : 0.0f;
    scale = top / static_cast<float>(kWhole);
    uint8_t bytes[2][16];
    for (int i = 0; i < 16; ++i) {
      const auto whole_level = static_cast<int>(__builtin_rintf(levels[i] * factor));
      bytes[0][i] = static_cast<uint8_t>(whole_level & 255);
      bytes[1][i] = static_cast<uint8_t>((whole_level >> 8) & 255);
    }
    low = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes[0])));
    high = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes[1])));
  }
};

// The levels of a segment's 32 bytes of codes, in the order of round_segment.
QLORA_INLINE void levels_of_segment(const WholeLevels& t, const uint8_t* codes, __m256i (&v)[4]) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  const __m256i even = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble),
                odd = _mm256_and_si256(bytes, nibble);
  const __m256i even_low = _mm256_shuffle_epi8(t.low, even), even_high = _mm256_shuffle_epi8(t.high, even);
  const __m256i odd_low = _mm256_shuffle_epi8(t.low, odd), odd_high = _mm256_shuffle_epi8(t.high, odd);
  v[0] = _mm256_unpacklo_epi8(even_low, even_high);
  v[1] = _mm256_unpackhi_epi8(even_low, even_high);
  v[2] = _mm256_unpacklo_epi8(odd_low, odd_high);
  v[3] = _mm256_unpackhi_epi8(odd_low, odd_high);
}

// One product, its x rounded.
struct DecodeJob {
  const DecodeArgs& a;
  const Codes& w;
  const WholeLevels& levels;
  // For every group of up to kDecodeRows rows: [segments][rows of the group][64], and a scale for each.
  const int16_t* values;
  const float* scales;
};

// The accumulators of R rows from `row` on, for output `column`.
template <int R>
QLORA_INLINE void decode_output(const DecodeJob& job, int64_t row, int64_t column, __m256 (&s)[R]) {
  const int64_t k = job.w.cols, segments = k / kSegment;
  const BlockOf block_of(job.w.block);
  const uint8_t* codes = job.w.data + column * k / 2;
  const int16_t* values = job.values + row * k;
  const float* scales = job.scales + row * segments;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) s[r] = _mm256_setzero_ps();
  for (int64_t i = 0; i < segments; ++i, codes += kSegment / 2, values += R * kSegment, scales += R) {
    __m256i v[4];
    levels_of_segment(job.levels, codes, v);
    const __m256 absmax =
        _mm256_set1_ps(job.w.absmax[block_of(column * k + i * kSegment) - job.w.first_block]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto* x = reinterpret_cast<const __m256i*>(values + r * kSegment);
      const __m256i even = _mm256_add_epi32(_mm256_madd_epi16(v[0], _mm256_loadu_si256(x)),
                                            _mm256_madd_epi16(v[1], _mm256_loadu_si256(x + 1)));
      const __m256i odd = _mm256_add_epi32(_mm256_madd_epi16(v[2], _mm256_loadu_si256(x + 2)),
                                           _mm256_madd_epi16(v[3], _mm256_loadu_si256(x + 3)));
      const __m256 scale = _mm256_mul_ps(absmax, _mm256_set1_ps(scales[r]));
      s[r] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(_mm256_add_epi32(even, odd)), s[r]);
    }
  }
}

// The sums of the lanes of four vectors, each in the order ((0+1) + (2+3)) + ((4+5) + (6+7)).
QLORA_INLINE __m128 lane_sums(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

// Outputs [begin, end) of R rows from `row` on, four at a time.
template <int R>
static void decode_block(const DecodeJob& job, int64_t row, int64_t begin, int64_t end) {
  for (int64_t column = begin; column < end; column += 4) {
    const int64_t columns = smaller(4, end - column);
    __m256 s[4][R] = {};
    for (int64_t c = 0; c < columns; ++c) decode_output<R>(job, row, column + c, s[c]);
    for (int r = 0; r < R; ++r) {
      float sums[4];
      _mm_storeu_ps(sums, lane_sums(s[0][r], s[1][r], s[2][r], s[3][r]));
      float* y = job.a.y + (row + r) * job.w.rows + column;
      for (int64_t c = 0; c < columns; ++c) y[c] = job.a.add ? y[c] + sums[c] : sums[c];
    }
  }
}

template <int R>
static void decode_block_of(int64_t rows, const DecodeJob& job, int64_t row, int64_t begin, int64_t end) {
  if constexpr (R > 1) {
    if (rows < R) return decode_block_of<R - 1>(rows, job, row, begin, end);
  }
  decode_block<R>(job, row, begin, end);
}

// False where the codes do not come in whole segments: then nothing is written.
static bool decode_rows(const DecodeArgs& a) {
  const Codes& w = *a.codes;
  if (w.cols % kSegment != 0 || w.block % kSegment != 0) return false;
  const WholeLevels levels(w.levels);
  const int64_t k = w.cols, segments = k / kSegment;
  // Half a float per value, one per segment.
  float* room = cpu::scratch(cpu::Scratch::packed_x, a.rows * (k / 2 + segments));
  auto* values = reinterpret_cast<int16_t*>(room);
  float* scales = room + a.rows * k / 2;
  for (int64_t row = 0; row < a.rows; row += kDecodeRows) {
    const int64_t group = smaller(kDecodeRows, a.rows - row);
    for (int64_t r = 0; r < group; ++r)
      for (int64_t i = 0; i < segments; ++i) {
        const int64_t to = row * segments + i * group + r;
        scales[to] = round_segment(a.x + (row + r) * k + i * kSegment, levels.scale, values + to * kSegment);
      }
  }
  // Tasks of some 64 Ki weights, in fours of outputs: less is not worth waking a thread for.
  const int64_t fours = (w.rows + 3) / 4, batch = larger(1, 65536 / (4 * k));
  parallel(fours, batch, [&](int64_t begin, int64_t end) {
    const int64_t last = smaller(w.rows, 4 * end);
    const Codes codes = with_scales(w, 4 * begin, last);
    const DecodeJob job{a, codes, levels, values, scales};
    for (int64_t row = 0; row < a.rows; row += kDecodeRows)
      decode_block_of<static_cast<int>(kDecodeRows)>(a.rows - row, job, row, 4 * begin, last);
  });
  return true;
}
