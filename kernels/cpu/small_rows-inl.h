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

// Two lines, `ahead` bytes beyond step `step` of the `bytes` that a pass reads per step.
QLORA_INLINE void prefetch_step(const uint8_t* base, const SmallRows& job, int64_t offset, int64_t bytes) {
  if (job.ahead == 0) return;
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(base + job.ahead + offset + b, 0, 2);
}

// As the product reads it (Operand::kFlush: bf16 operands).
template <class Operand>
QLORA_INLINE __m256 read_weight(__m256 w) {
  return Operand::kFlush ? operand_nearest_bf16(w) : w;
}

// Values k and k + 1 in the order of the sum: bf16 operands take the odd one first.
template <class Operand, int R>
QLORA_INLINE void multiply_pair(const GemmArgs& g, int64_t k, __m256 even, __m256 odd, __m256 (&s)[R]) {
  if constexpr (Operand::kFlush) {
    multiply_column<R>(g, k + 1, odd, s);
    multiply_column<R>(g, k, even, s);
  } else {
    multiply_column<R>(g, k, even, s);
    multiply_column<R>(g, k + 1, odd, s);
  }
}

// A value k without the odd one of its pair: bf16 operands add a zero for that.
template <class Operand, int R>
QLORA_INLINE void multiply_last(const GemmArgs& g, int64_t k, __m256 w, __m256 (&s)[R]) {
  if constexpr (Operand::kFlush)
    for (int r = 0; r < R; ++r) s[r] = _mm256_add_ps(s[r], _mm256_setzero_ps());
  multiply_column<R>(g, k, w, s);
}

// Sixteen bytes of k per row.
template <class Operand, int R>
QLORA_INLINE void multiply_rows(const GemmArgs& g, int64_t k, const float* p, int64_t ld, __m256 (&s)[R]) {
  __m256i v[4];
  rows_of_dwords(reinterpret_cast<const uint8_t*>(p), ld * 4, v);
#pragma GCC unroll 2
  for (int j = 0; j < 4; j += 2)
    multiply_pair<Operand, R>(g, k + j, read_weight<Operand>(_mm256_castsi256_ps(v[j])),
                              read_weight<Operand>(_mm256_castsi256_ps(v[j + 1])), s);
}
template <class Operand, int R>
QLORA_INLINE void multiply_rows(const GemmArgs& g, int64_t k, const uint16_t* p, int64_t ld, __m256 (&s)[R]) {
  __m256i v[4];
  rows_of_dwords(reinterpret_cast<const uint8_t*>(p), ld * 2, v);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j)
    multiply_pair<Operand, R>(
        g, k + 2 * j, _mm256_castsi256_ps(_mm256_slli_epi32(v[j], 16)),
        _mm256_castsi256_ps(_mm256_and_si256(v[j], _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u)))), s);
}

// One value of k of eight rows.
template <class Operand, class T>
QLORA_INLINE __m256 weights_at(const T* p, int64_t ld) {
  return read_weight<Operand>(_mm256_setr_ps(load1(p), load1(p + ld), load1(p + 2 * ld), load1(p + 3 * ld),
                                             load1(p + 4 * ld), load1(p + 5 * ld), load1(p + 6 * ld),
                                             load1(p + 7 * ld)));
}

// The values [k, end) that do not fill sixteen bytes.
template <class Operand, int R, class T>
static void multiply_rest(const GemmArgs& g, int64_t k, int64_t end, const T* p, __m256 (&s)[R]) {
  for (; k + 2 <= end; k += 2, p += 2)
    multiply_pair<Operand, R>(g, k, weights_at<Operand>(p, g.ldw), weights_at<Operand>(p + 1, g.ldw), s);
  if (k < end) multiply_last<Operand, R>(g, k, weights_at<Operand>(p, g.ldw), s);
}

// Whether rows of w lie so that the lines of one k of all of them meet in a set or two of the first cache,
// which then loses each before its end is read.
QLORA_INLINE bool lines_meet(int64_t row_bytes) {
  return row_bytes % 2048 == 0;
}

// A line of each of N rows of w: its first `count` values.
template <int N, class T>
struct Lines {
  static constexpr int64_t kValues = 64 / static_cast<int64_t>(sizeof(T));
  alignas(64) T values[N * kValues];
};
template <int N, class T>
QLORA_INLINE void read_lines(const T* w, int64_t ldw, int64_t count, Lines<N, T>& lines) {
  constexpr int64_t kValues = Lines<N, T>::kValues;
  const int64_t bytes = smaller(kValues, count) * static_cast<int64_t>(sizeof(T));
  if (bytes == 64) {
    for (int i = 0; i < N; ++i) __builtin_memcpy(lines.values + i * kValues, w + i * ldw, 64);
  } else {
    for (int i = 0; i < N; ++i)
      __builtin_memcpy(lines.values + i * kValues, w + i * ldw, static_cast<size_t>(bytes));
  }
}

// Columns [column, column + 8 G) of y from dense w [n, k].
template <class Operand, int R, int G, bool kLines, class T>
static void small_dense(const SmallRows& job, const T* dense, int64_t column) {
  constexpr int64_t kStep = 16 / static_cast<int64_t>(sizeof(T));
  const GemmArgs& g = job.g;
  __m256 s[G][R];
  for (int i = 0; i < G; ++i)
    for (int r = 0; r < R; ++r) s[i][r] = _mm256_setzero_ps();
  const T* w = dense + column * g.ldw;
  using Read = Lines<8 * G, T>;
  Read lines;
  for (int64_t k0 = 0; k0 < g.k; k0 += job.chunk) {
    const int64_t end = smaller(g.k, k0 + job.chunk);
    int64_t k = k0;
    for (; k + kStep <= end; k += kStep) {
      prefetch_step(reinterpret_cast<const uint8_t*>(w), job, k / kStep * G * 128, G * 128);
      const T* p = w + k;
      int64_t ld = g.ldw;
      if constexpr (kLines) {
        const int64_t in_line = (k - k0) % Read::kValues;
        if (in_line == 0) read_lines(p, ld, end - k, lines);
        p = lines.values + in_line;
        ld = Read::kValues;
      }
#pragma GCC unroll 4
      for (int i = 0; i < G; ++i) multiply_rows<Operand, R>(g, k, p + i * 8 * ld, ld, s[i]);
    }
    for (int i = 0; i < G; ++i) {
      if (k < end) multiply_rest<Operand, R>(g, k, end, w + i * 8 * g.ldw + k, s[i]);
      end_chunk<R>(g, column + i * 8, g.add || k0 > 0, s[i]);
    }
  }
}

// Eight values of a row of w, as the product reads them; stored bf16 are that already.
template <class Operand>
QLORA_INLINE __m256 eight_weights(const float* p) {
  return read_weight<Operand>(load8(p));
}
template <class Operand>
QLORA_INLINE __m256 eight_weights(const uint16_t* p) {
  return load8(p);
}

// Columns [column, column + 8 G) of y from dense w [k, n]: rows of w are added up as they are.
template <class Operand, int R, int G, class T>
static void small_sum(const SmallRows& job, const T* dense, int64_t column) {
  const GemmArgs& g = job.g;
  __m256 s[G][R];
  for (int i = 0; i < G; ++i)
    for (int r = 0; r < R; ++r) s[i][r] = _mm256_setzero_ps();
  for (int64_t k0 = 0; k0 < g.k; k0 += job.chunk) {
    const int64_t end = smaller(g.k, k0 + job.chunk);
    const T* w = dense + k0 * g.ldw + column;
    const auto weights = [&](int64_t at) { return eight_weights<Operand>(w + at); };
    int64_t k = k0;
    for (; k + 2 <= end; k += 2, w += 2 * g.ldw) {
#pragma GCC unroll 8
      for (int i = 0; i < G; ++i)
        multiply_pair<Operand, R>(g, k, weights(8 * i), weights(g.ldw + 8 * i), s[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < G; ++i) {
      if (k < end) multiply_last<Operand, R>(g, k, weights(8 * i), s[i]);
      end_chunk<R>(g, column + i * 8, g.add || k0 > 0, s[i]);
    }
  }
}

// The values of k in a dword of codes of each of eight rows: eight or four.
template <int R>
QLORA_INLINE void multiply_codes(const GemmArgs& g, const ByteTables& t, __m256i words, __m256 scale,
                                 int64_t k, __m256 (&s)[R]) {
  __m256i even[4], odd[4];
  levels_of_words(t, words, even, odd);
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b) {
    multiply_column<R>(g, k + 2 * b, _mm256_mul_ps(_mm256_castsi256_ps(even[b]), scale), s);
    multiply_column<R>(g, k + 2 * b + 1, _mm256_mul_ps(_mm256_castsi256_ps(odd[b]), scale), s);
  }
}
template <int R>
QLORA_INLINE void multiply_codes(const GemmArgs& g, const Levels8&, __m256i words, __m256 scale, int64_t k,
                                 __m256 (&s)[R]) {
  multiply_column<R>(g, k, _mm256_mul_ps(int8_levels_of<0>(words), scale), s);
  multiply_column<R>(g, k + 1, _mm256_mul_ps(int8_levels_of<1>(words), scale), s);
  multiply_column<R>(g, k + 2, _mm256_mul_ps(int8_levels_of<2>(words), scale), s);
  multiply_column<R>(g, k + 3, _mm256_mul_ps(int8_levels_of<3>(words), scale), s);
}

// Columns [column, column + 8 G) of y from codes [n, k] of kBits. REQUIRES: small_codes_fit.
template <int R, int G, int kBits, class Levels>
static void small_codes(const SmallRows& job, const Levels& levels, int64_t column) {
  constexpr int64_t kWord = 32 / kBits;  // values of k in a dword
  const GemmArgs& g = job.g;
  const Codes& w = *g.codes;
  const BlockOf block_of(w.block);
  __m256 s[G][R], scale[G];
  for (int i = 0; i < G; ++i)
    for (int r = 0; r < R; ++r) s[i][r] = _mm256_setzero_ps();
  const int64_t ld = w.cols * kBits / 8;
  const uint8_t* p = w.data + column * ld;
  int64_t end = smaller(g.k, job.chunk);
  bool add = g.add;
  for (int64_t k0 = 0; k0 < g.k; k0 += 4 * kWord) {
    prefetch_step(p, job, k0 * G * kBits, G * 128);
    __m256i words[G][4];
    for (int i = 0; i < G; ++i) {
      rows_of_dwords(p + i * 8 * ld + k0 * kBits / 8, ld, words[i]);
      alignas(32) float scales[8];
      for (int j = 0; j < 8; ++j)
        scales[j] = w.absmax[block_of((column + i * 8 + j) * w.cols + k0) - w.first_block];
      scale[i] = _mm256_load_ps(scales);
    }
    for (int j = 0; j < 4; ++j) {
      const int64_t k = k0 + kWord * j;
#pragma GCC unroll 4
      for (int i = 0; i < G; ++i) multiply_codes<R>(g, levels, words[i][j], scale[i], k, s[i]);
      if (k + kWord < end) continue;
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

// An element of w of column `column`.
QLORA_INLINE float small_weight(const GemmArgs& g, int64_t column, int64_t k) {
  if (g.codes != nullptr) return decode_one(*g.codes, column * g.codes->cols + k);
  const int64_t at = g.layout == Layout::nt ? column * g.ldw + k : k * g.ldw + column;
  return g.dense_bf16 != nullptr ? load1(g.dense_bf16 + at) : g.dense[at];
}

// One column of y, for what is left over beside groups of eight: one lane of the same steps.
template <class Operand>
static void small_column(const SmallRows& job, int64_t column) {
  const GemmArgs& g = job.g;
  for (int64_t r = 0; r < g.m; ++r) {
    const GemmArgs row{.x = g.x + r * g.ldx, .y = g.y + r * g.ldy + column, .alpha = g.alpha};
    auto weight = [&](int64_t k) { return read_weight<Operand>(_mm256_set1_ps(small_weight(g, column, k))); };
    for (int64_t k0 = 0; k0 < g.k; k0 += job.chunk) {
      __m256 s[1] = {_mm256_setzero_ps()};
      int64_t k = k0;
      const int64_t end = smaller(g.k, k0 + job.chunk);
      for (; k + 2 <= end; k += 2) multiply_pair<Operand, 1>(row, k, weight(k), weight(k + 1), s);
      if (k < end) multiply_last<Operand, 1>(row, k, weight(k), s);
      const __m256 alpha = _mm256_set1_ps(g.alpha);
      *row.y = _mm256_cvtss_f32(g.add || k0 > 0 ? _mm256_fmadd_ps(alpha, s[0], _mm256_set1_ps(*row.y))
                                                : _mm256_mul_ps(alpha, s[0]));
    }
  }
}

// Columns [begin, end) of y, in groups; returns where groups end.
template <class Operand, int R, class T>
QLORA_INLINE int64_t small_dense_groups(const SmallRows& job, const T* dense, int64_t c, int64_t end) {
  constexpr int G = groups_of(R);
  if (G > 1 && lines_meet(job.g.ldw * static_cast<int64_t>(sizeof(T)))) {
    for (; c + 8 * G <= end; c += 8 * G) small_dense<Operand, R, G, true>(job, dense, c);
  } else {
    for (; c + 8 * G <= end; c += 8 * G) small_dense<Operand, R, G, false>(job, dense, c);
  }
  for (; c + 8 <= end; c += 8) small_dense<Operand, R, 1, false>(job, dense, c);
  return c;
}
template <int R, int kBits, class Levels>
QLORA_INLINE int64_t small_code_groups(const SmallRows& job, const Levels& levels, int64_t c, int64_t end) {
  constexpr int G = groups_of(R);
  for (; c + 8 * G <= end; c += 8 * G) small_codes<R, G, kBits>(job, levels, c);
  for (; c + 8 <= end; c += 8) small_codes<R, 1, kBits>(job, levels, c);
  return c;
}
template <class Operand, int R, class T>
QLORA_INLINE int64_t small_sum_groups(const SmallRows& job, const T* dense, int64_t c, int64_t end) {
  constexpr int G = R == 1 ? 8 : groups_of(R);
  for (; c + 8 * G <= end; c += 8 * G) small_sum<Operand, R, G>(job, dense, c);
  for (; c + 8 <= end; c += 8) small_sum<Operand, R, 1>(job, dense, c);
  return c;
}

// Returns where whole groups of eight columns end.
template <class Operand, int R>
static int64_t small_groups(const SmallRows& job, int64_t begin, int64_t end) {
  const GemmArgs& g = job.g;
  if constexpr (!Operand::kFlush) {
    if (g.codes != nullptr && g.codes->bits == 8)
      return small_code_groups<R, 8>(job, Levels8(g.codes->levels), begin, end);
    if (g.codes != nullptr) return small_code_groups<R, 4>(job, ByteTables(g.codes->levels), begin, end);
  }
  if (g.codes != nullptr) return begin;
  if (g.layout == Layout::nn)
    return g.dense_bf16 != nullptr ? small_sum_groups<Operand, R>(job, g.dense_bf16, begin, end)
                                   : small_sum_groups<Operand, R>(job, g.dense, begin, end);
  return g.dense_bf16 != nullptr ? small_dense_groups<Operand, R>(job, g.dense_bf16, begin, end)
                                 : small_dense_groups<Operand, R>(job, g.dense, begin, end);
}

template <class Operand, int R>
static void small_columns(const SmallRows& job, int64_t begin, int64_t end) {
  int64_t c = small_groups<Operand, R>(job, begin, end);
  // What is left: the last eight again where nothing is added twice, else one by one.
  const bool again = !job.g.add && job.g.k <= job.chunk && end - begin >= 8;
  if (c < end && again) c = small_groups<Operand, R>(job, end - 8, end);
  for (; c < end; ++c) small_column<Operand>(job, c);
}

template <class Operand, int R>
static void small_columns_of(int64_t rows, const SmallRows& job, int64_t begin, int64_t end) {
  if constexpr (R > 1) {
    if (rows < R) return small_columns_of<Operand, R - 1>(rows, job, begin, end);
  }
  small_columns<Operand, R>(job, begin, end);
}

// Codes with bf16 operands: small_codes-inl.h where operands are multiplied in pairs, else the packed
// product.
template <class Operand>
QLORA_INLINE bool small_codes_take(Operand, const GemmArgs&) {
  return false;
}
template <class Operand>
QLORA_INLINE void small_code_rows(Operand, const GemmArgs&) {}
#if QLORA_PAIRS
static bool small_codes_take(Bf16Pairs, const GemmArgs& g);
static void small_code_rows(Bf16Pairs, const GemmArgs& g);
#endif

// Whether these kernels take a product.
template <class Operand>
static bool small_rows_take(const GemmArgs& g) {
  if (g.codes != nullptr && small_codes_take(Operand{}, g)) return true;
  if (g.m > kSmallRows || g.layout == Layout::tn) return false;
  return g.codes == nullptr || (!Operand::kFlush && g.layout == Layout::nt && small_codes_fit(*g.codes));
}

// x as the product reads it, when that is not as it is stored: in scratch of the calling thread.
static GemmArgs with_bf16_rows(const GemmArgs& g) {
  GemmArgs rounded = g;
  float* x = cpu::scratch(cpu::Scratch::packed_x, g.m * g.k);
  with_x(g, [&](const auto* rows) {
    for (int64_t r = 0; r < g.m; ++r)
      for (int64_t k = 0; k < g.k; ++k)
        x[r * g.k + k] = _mm256_cvtss_f32(operand_nearest_bf16(_mm256_set1_ps(load1(rows + r * g.ldx + k))));
  });
  rounded.x = x;
  rounded.x_bf16 = nullptr;
  rounded.ldx = g.k;
  return rounded;
}

template <class Operand>
static void small_rows(const GemmArgs& stored) {
  if (stored.codes != nullptr && small_codes_take(Operand{}, stored))
    return small_code_rows(Operand{}, stored);
  const GemmArgs g = Operand::kFlush ? with_bf16_rows(stored) : stored;
  const bool contiguous = g.codes != nullptr || (g.layout == Layout::nt && g.ldw == g.k);
  const int64_t row_bytes =
      g.codes != nullptr ? g.codes->cols * g.codes->bits / 8 : g.k * (g.dense_bf16 != nullptr ? 2 : 4);
  const int64_t pass = 8 * groups_of(static_cast<int>(g.m));
  const int64_t chunk = chunk_of<Operand>(g.k), ahead = contiguous ? pass * row_bytes : 0;
  parallel((g.n + pass - 1) / pass, weights_per_task(pass * g.k), [&](int64_t begin, int64_t end) {
    const int64_t first = begin * pass, last = smaller(g.n, end * pass);
    GemmArgs task = g;
    Codes codes;
    if (g.codes != nullptr) {
      codes = with_scales(*g.codes, first, last);
      task.codes = &codes;
    }
    const FlushDenormals<Operand::kFlush> flush;
    small_columns_of<Operand, static_cast<int>(kSmallRows)>(g.m, {task, chunk, ahead}, first, last);
  });
}
