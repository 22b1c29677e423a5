// Products of few rows, straight from w: nothing is packed. A row reads every weight once, so that memory or
// the decoding of codes is the limit, and a packed panel would be written and read for nothing.
//
// Bit-equal, row for row, to the packed product of gemm-inl.h: the same chunks of k, one fma per value of k
// from zero, the same epilogue after each chunk. One lane is one column of y, as there. So the number of rows
// may choose between the two. All instruction sets run the same eight lanes here.

constexpr int64_t kSmallRows = 6;

// Work of one call: the product, its chunk of k, and how far ahead of its use a line of w is asked for
// (bytes; 0: w is not contiguous).
struct SmallRows {
  const GemmArgs& g;
  int64_t chunk;
  int64_t ahead;
};

// Groups of eight columns that one pass takes: enough chains of multiply-adds to hide their latency, few
// enough for the registers.
constexpr int groups_of(int rows) {
  return rows <= 2 ? 4 : rows <= 4 ? 2 : 1;
}

// What tile() does with a finished chunk, for eight columns.
template <int R>
QLORA_INLINE void end_chunk(const GemmArgs& g, int64_t column, bool add, __m256 (&s)[R]) {
  const __m256 alpha = _mm256_set1_ps(g.alpha);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float* y = g.y + r * g.ldy + column;
    _mm256_storeu_ps(y, add ? _mm256_fmadd_ps(alpha, s[r], _mm256_loadu_ps(y)) : _mm256_mul_ps(alpha, s[r]));
    s[r] = _mm256_setzero_ps();
  }
}

template <int R>
QLORA_INLINE void multiply_column(const GemmArgs& g, int64_t k, __m256 w, __m256 (&s)[R]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) s[r] = _mm256_fmadd_ps(_mm256_set1_ps(g.x[r * g.ldx + k]), w, s[r]);
}

// Sixteen bytes of each of eight rows, as dwords: v[j] lane i = dword j of row i.
QLORA_INLINE void rows_of_dwords(const uint8_t* p, int64_t stride, __m256i (&v)[4]) {
  for (int j = 0; j < 4; ++j) {
    const auto* low = reinterpret_cast<const __m128i*>(p + j * stride);
    const auto* high = reinterpret_cast<const __m128i*>(p + (j + 4) * stride);
    v[j] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high), 1);
  }
  const __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]);
  const __m256i c = _mm256_unpacklo_epi32(v[2], v[3]), d = _mm256_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm256_unpacklo_epi64(a, c);
  v[1] = _mm256_unpackhi_epi64(a, c);
  v[2] = _mm256_unpacklo_epi64(b, d);
  v[3] = _mm256_unpackhi_epi64(b, d);
}

// Two lines, `ahead` bytes beyond step `step` of the `bytes` that a pass reads per step.
QLORA_INLINE void prefetch_step(const uint8_t* base, const SmallRows& job, int64_t offset, int64_t bytes) {
  if (job.ahead == 0) return;
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(base + job.ahead + offset + b, 0, 2);
}

// Columns [column, column + 8 G) of y from dense w [n, k].
template <int R, int G>
static void small_dense(const SmallRows& job, int64_t column) {
  const GemmArgs& g = job.g;
  __m256 s[G][R];
  for (int i = 0; i < G; ++i)
    for (int r = 0; r < R; ++r) s[i][r] = _mm256_setzero_ps();
  const float* w = g.dense + column * g.ldw;
  for (int64_t k0 = 0; k0 < g.k; k0 += job.chunk) {
    const int64_t end = smaller(g.k, k0 + job.chunk);
    int64_t k = k0;
    for (; k + 4 <= end; k += 4) {
      prefetch_step(reinterpret_cast<const uint8_t*>(w), job, k * G * 32, G * 128);
#pragma GCC unroll 4
      for (int i = 0; i < G; ++i) {
        __m256i v[4];
        rows_of_dwords(reinterpret_cast<const uint8_t*>(w + i * 8 * g.ldw + k), g.ldw * 4, v);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) multiply_column<R>(g, k + j, _mm256_castsi256_ps(v[j]), s[i]);
      }
    }
    for (; k < end; ++k)
      for (int i = 0; i < G; ++i) {
        const float* p = w + i * 8 * g.ldw + k;
        const int64_t ld = g.ldw;
        const __m256 v =
            _mm256_setr_ps(p[0], p[ld], p[2 * ld], p[3 * ld], p[4 * ld], p[5 * ld], p[6 * ld], p[7 * ld]);
        multiply_column<R>(g, k, v, s[i]);
      }
    for (int i = 0; i < G; ++i) end_chunk<R>(g, column + i * 8, g.add || k0 > 0, s[i]);
  }
}

// Columns [column, column + 8 G) of y from dense w [k, n]: rows of w are added up as they are.
template <int R, int G>
static void small_sum(const SmallRows& job, int64_t column) {
  const GemmArgs& g = job.g;
  __m256 s[G][R];
  for (int i = 0; i < G; ++i)
    for (int r = 0; r < R; ++r) s[i][r] = _mm256_setzero_ps();
  for (int64_t k0 = 0; k0 < g.k; k0 += job.chunk) {
    for (int64_t k = k0; k < smaller(g.k, k0 + job.chunk); ++k) {
      const float* w = g.dense + k * g.ldw + column;
#pragma GCC unroll 8
      for (int i = 0; i < G; ++i) multiply_column<R>(g, k, _mm256_loadu_ps(w + 8 * i), s[i]);
    }
    for (int i = 0; i < G; ++i) end_chunk<R>(g, column + i * 8, g.add || k0 > 0, s[i]);
  }
}

// The 16 levels as four tables of their bytes, for byte shuffles: two thirds of the work of looking up
// floats.
struct ByteTables {
  __m256i byte[4];
  __m256i transpose;  // within each half: byte b of row i, stored at 4 i + b, to 4 b + i
  explicit ByteTables(const float* levels) {
    uint8_t bytes[4][16];
    for (int i = 0; i < 16; ++i) {
      uint32_t bits;
      __builtin_memcpy(&bits, levels + i, 4);
      for (int b = 0; b < 4; ++b) bytes[b][i] = static_cast<uint8_t>(bits >> (8 * b));
    }
    for (int b = 0; b < 4; ++b)
      byte[b] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes[b])));
    transpose =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  }
};

// Levels of one code of each byte; `codes` holds rows 0..3 (4..7 in the upper half) of byte 0, then of byte
// 1,
// ...: v[b] lane i = level of byte b of row i.
QLORA_INLINE void levels_of_bytes(const ByteTables& t, __m256i codes, __m256i (&v)[4]) {
  const __m256i b0 = _mm256_shuffle_epi8(t.byte[0], codes), b1 = _mm256_shuffle_epi8(t.byte[1], codes);
  const __m256i b2 = _mm256_shuffle_epi8(t.byte[2], codes), b3 = _mm256_shuffle_epi8(t.byte[3], codes);
  const __m256i low0 = _mm256_unpacklo_epi8(b0, b1), low1 = _mm256_unpackhi_epi8(b0, b1);
  const __m256i high0 = _mm256_unpacklo_epi8(b2, b3), high1 = _mm256_unpackhi_epi8(b2, b3);
  v[0] = _mm256_unpacklo_epi16(low0, high0);
  v[1] = _mm256_unpackhi_epi16(low0, high0);
  v[2] = _mm256_unpacklo_epi16(low1, high1);
  v[3] = _mm256_unpackhi_epi16(low1, high1);
}

// Eight values of k, from a dword of codes of each of eight rows.
template <int R>
QLORA_INLINE void multiply_codes(const GemmArgs& g, const ByteTables& t, __m256i words, __m256 scale,
                                 int64_t k, __m256 (&s)[R]) {
  const __m256i low_nibble = _mm256_set1_epi8(15);
  const __m256i bytes = _mm256_shuffle_epi8(words, t.transpose);
  __m256i even[4], odd[4];
  levels_of_bytes(t, _mm256_and_si256(_mm256_srli_epi32(bytes, 4), low_nibble), even);
  levels_of_bytes(t, _mm256_and_si256(bytes, low_nibble), odd);
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b) {
    multiply_column<R>(g, k + 2 * b, _mm256_mul_ps(_mm256_castsi256_ps(even[b]), scale), s);
    multiply_column<R>(g, k + 2 * b + 1, _mm256_mul_ps(_mm256_castsi256_ps(odd[b]), scale), s);
  }
}

// Columns [column, column + 8 G) of y from codes [n, k]. REQUIRES: small_codes_fit.
template <int R, int G>
static void small_codes(const SmallRows& job, const ByteTables& t, int64_t column) {
  const GemmArgs& g = job.g;
  const Codes& w = *g.codes;
  const BlockOf block_of(w.block);
  __m256 s[G][R], scale[G];
  for (int i = 0; i < G; ++i)
    for (int r = 0; r < R; ++r) s[i][r] = _mm256_setzero_ps();
  const uint8_t* p = w.data + column * w.cols / 2;
  int64_t end = smaller(g.k, job.chunk);
  bool add = g.add;
  for (int64_t k0 = 0; k0 < g.k; k0 += 32) {
    prefetch_step(p, job, k0 * G * 4, G * 128);
    __m256i words[G][4];
    for (int i = 0; i < G; ++i) {
      rows_of_dwords(p + (i * 8 * w.cols + k0) / 2, w.cols / 2, words[i]);
      alignas(32) float scales[8];
      for (int j = 0; j < 8; ++j)
        scales[j] = w.absmax[block_of((column + i * 8 + j) * w.cols + k0) - w.first_block];
      scale[i] = _mm256_load_ps(scales);
    }
    for (int j = 0; j < 4; ++j) {
      const int64_t k = k0 + 8 * j;
#pragma GCC unroll 4
      for (int i = 0; i < G; ++i) multiply_codes<R>(g, t, words[i][j], scale[i], k, s[i]);
      if (k + 8 < end) continue;
      for (int i = 0; i < G; ++i) end_chunk<R>(g, column + i * 8, add, s[i]);
      add = true;
      end = smaller(g.k, end + job.chunk);
    }
  }
}

// Whole words of 16 bytes, each with one absmax.
QLORA_INLINE bool small_codes_fit(const Codes& w) {
  return w.cols % 32 == 0 && w.block % 32 == 0;
}

// One column of y, for what is left over beside groups of eight.
static void small_column(const SmallRows& job, int64_t column) {
  const GemmArgs& g = job.g;
  for (int64_t r = 0; r < g.m; ++r) {
    float* y = g.y + r * g.ldy + column;
    for (int64_t k0 = 0; k0 < g.k; k0 += job.chunk) {
      float s = 0;
      for (int64_t k = k0; k < smaller(g.k, k0 + job.chunk); ++k) {
        const float w = g.codes != nullptr       ? decode_one(*g.codes, column * g.codes->cols + k)
                        : g.layout == Layout::nt ? g.dense[column * g.ldw + k]
                                                 : g.dense[k * g.ldw + column];
        s = __builtin_fmaf(g.x[r * g.ldx + k], w, s);
      }
      *y = g.add || k0 > 0 ? __builtin_fmaf(g.alpha, s, *y) : g.alpha * s;
    }
  }
}

// Columns [begin, end) of y.
template <int R>
static void small_columns(const SmallRows& job, int64_t begin, int64_t end) {
  constexpr int G = groups_of(R);
  int64_t c = begin;
  if (job.g.codes != nullptr) {
    const ByteTables tables(job.g.codes->levels);
    for (; c + 8 * G <= end; c += 8 * G) small_codes<R, G>(job, tables, c);
    for (; c + 8 <= end; c += 8) small_codes<R, 1>(job, tables, c);
  } else if (job.g.layout == Layout::nt) {
    for (; c + 8 * G <= end; c += 8 * G) small_dense<R, G>(job, c);
    for (; c + 8 <= end; c += 8) small_dense<R, 1>(job, c);
  } else {
    constexpr int kWide = R == 1 ? 8 : G;
    for (; c + 8 * kWide <= end; c += 8 * kWide) small_sum<R, kWide>(job, c);
    for (; c + 8 <= end; c += 8) small_sum<R, 1>(job, c);
  }
  for (; c < end; ++c) small_column(job, c);
}

template <int R>
static void small_columns_of(int64_t rows, const SmallRows& job, int64_t begin, int64_t end) {
  if constexpr (R > 1) {
    if (rows < R) return small_columns_of<R - 1>(rows, job, begin, end);
  }
  small_columns<R>(job, begin, end);
}

// Whether these kernels take a product.
static bool small_rows_take(const GemmArgs& g) {
  if (g.m > kSmallRows || g.layout == Layout::tn || g.dense_bf16 != nullptr) return false;
  return g.codes == nullptr || (g.layout == Layout::nt && small_codes_fit(*g.codes));
}

static void small_rows(const GemmArgs& g) {
  const bool contiguous = g.codes != nullptr || (g.layout == Layout::nt && g.ldw == g.k);
  const int64_t row_bytes = g.codes != nullptr ? g.codes->cols / 2 : g.k * 4;
  const int64_t pass = 8 * groups_of(static_cast<int>(g.m));
  const int64_t chunk = chunk_of(g.k), ahead = contiguous ? pass * row_bytes : 0;
  const int64_t passes = (g.n + pass - 1) / pass;
  // Tasks of some 64 Ki weights; less than that is not worth waking a thread for.
  const int64_t batch = larger(1, 65536 / (pass * g.k));
  parallel(passes, batch, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * pass, last = smaller(g.n, end * pass);
    GemmArgs task = g;
    Codes codes;
    if (g.codes != nullptr) {
      codes = with_scales(*g.codes, first, last);
      task.codes = &codes;
    }
    small_columns_of<static_cast<int>(kSmallRows)>(g.m, {task, chunk, ahead}, first, last);
  });
}
