// Products of few rows with bf16 operands, from codes: as small_rows-inl.h, with the bits of the packed
// product. What is decoded (tables16-inl.h) is stored for one step of 32 values of k and multiplied while the
// next one is decoded: permutations and multiply-adds are different units of the processor.

#if QLORA_PAIRS

constexpr int64_t kSmallCodeRows = 16;

// Groups of eight columns that one pass takes: enough chains of multiply-adds, few enough for the registers.
constexpr int code_groups_of(int rows) {
  return rows <= 2 ? 4 : rows <= 8 ? 2 : 1;
}

// What dot_pairs8() needs around it.
template <bool kNeeded>
struct FlushWhere {
  const FlushDenormals<true> flush;
};
template <>
struct FlushWhere<false> {};

// Work of one call: the product; x as pairs, those of all rows side by side; the chunk of k.
struct SmallCodes {
  const GemmArgs& g;
  const uint32_t* x;
  int64_t chunk;
};

// Four pairs of k times all rows.
template <int R, int G>
QLORA_INLINE void multiply_four_pairs(const uint32_t* x, const uint32_t* w, __m256 (&s)[G][R]) {
  [[maybe_unused]] const FlushWhere<!kDotsFlush> flush;
#pragma GCC unroll 1
  for (int j = 0; j < 4; ++j, x += R, w += 8)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < G; ++i) s[i][r] = dot_pairs8(x[r], w + i * 128, s[i][r]);
}

// What decodes eight rows of w at k.
template <class Levels>
QLORA_INLINE auto tables_at(const Levels& levels, const Codes& w, BlockOf block_of, int64_t row, int64_t k) {
  float scales[8];
  for (int j = 0; j < 8; ++j) scales[j] = w.absmax[block_of((row + j) * w.cols + k) - w.first_block];
  return pair_tables(levels, scales);
}

// Columns [column, column + 8 G) of y.
template <int R, int G, class Levels>
static void small_code_pass(const SmallCodes& job, const Levels& levels, int64_t column) {
  constexpr int kBits = Levels::kBits;
  const GemmArgs& g = job.g;
  const Codes& w = *g.codes;
  const BlockOf block_of(w.block);
  const int64_t ld = w.cols * kBits / 8, step_blocks = w.cols % w.block == 0 ? w.block : 32;
  const uint8_t* p = w.data + column * ld;
  typename Levels::Tables tables[G];
  alignas(64) uint32_t pairs[2][G * 128];
  __m256 s[G][R];
  for (int i = 0; i < G; ++i)
    for (int r = 0; r < R; ++r) s[i][r] = _mm256_setzero_ps();
  int64_t k = 0, end = smaller(g.k, job.chunk), next_block = 0;
  bool add = g.add;
  // Quad `q` of the step before k.
  const auto multiply = [&](const uint32_t* step, int q) __attribute__((always_inline)) {
    const int64_t at = k - 32 + 8 * q;
    multiply_four_pairs<R, G>(job.x + at / 2 * R, step + 32 * q, s);
    if (at + 8 < end) return;
    const FlushDenormals<true> flush;
    for (int i = 0; i < G; ++i) end_chunk<R>(g, column + 8 * i, add, s[i]);
    add = true;
    end = smaller(g.k, end + job.chunk);
  };
  for (; k < g.k; k += 32) {
    const bool fresh = k == next_block;
    if (fresh) next_block += step_blocks;
    if (k % (512 / kBits) == 0)
      for (int r = 0; r < 8 * G; ++r) __builtin_prefetch(p + (8 * G + r) * ld + k * kBits / 8, 0, 2);
    uint32_t *now = pairs[k / 32 % 2], *before = pairs[1 - k / 32 % 2];
#pragma GCC unroll 4
    for (int i = 0; i < G; ++i) {
      if (fresh) tables[i] = tables_at(levels, w, block_of, column + 8 * i, k);
      decode_pairs8(levels, tables[i], p + 8 * i * ld + k * kBits / 8, ld, now + i * 128);
      if (k == 0) continue;
#pragma GCC unroll 1
      for (int q = 4 / G * i; q < 4 / G * (i + 1); ++q) multiply(before, q);
    }
  }
  for (int q = 0; q < 4; ++q) multiply(pairs[1 - k / 32 % 2], q);
}

template <int R, class Levels>
static void small_code_columns(const SmallCodes& job, const Levels& levels, int64_t c, int64_t end) {
  constexpr int G = code_groups_of(R);
  for (; c + 8 * G <= end; c += 8 * G) small_code_pass<R, G>(job, levels, c);
  for (; c < end; c += 8) small_code_pass<R, 1>(job, levels, c);
}
template <int R>
static void small_code_columns_of(const SmallCodes& job, int64_t begin, int64_t end) {
  if constexpr (R > 1) {
    if (job.g.m < R) return small_code_columns_of<R - 1>(job, begin, end);
  }
  if (job.g.codes->bits == 8)
    small_code_columns<R>(job, PairBytes(), begin, end);
  else
    small_code_columns<R>(job, PairLevels(job.g.codes->levels), begin, end);
}

// Whether these kernels take a product of codes.
static bool small_codes_take(Bf16Pairs, const GemmArgs& g) {
  return g.m <= kSmallCodeRows && g.layout == Layout::nt && g.n % 8 == 0 && small_codes_fit(*g.codes);
}

static void small_code_rows(Bf16Pairs, const GemmArgs& g) {
  // Sixteen words are written at a time.
  float* x = cpu::scratch(cpu::Scratch::packed_x, g.m * g.k / 2 + kLanes);
  with_x(g, [&](const auto* rows) {
    transpose_pairs_of<0>(g.m, g.k, x, g.m, [&](int64_t i, int64_t k, int64_t n) {
      return load_pairs(rows + i * g.ldx + k, n);
    });
  });
  const int64_t pass = 8 * code_groups_of(static_cast<int>(g.m));
  parallel((g.n + pass - 1) / pass, weights_per_task(pass * g.k), [&](int64_t begin, int64_t end) {
    const int64_t first = begin * pass, last = smaller(g.n, end * pass);
    const Codes codes = with_scales(*g.codes, first, last);
    GemmArgs task = g;
    task.codes = &codes;
    const SmallCodes job{task, reinterpret_cast<const uint32_t*>(x), chunk_of<Bf16Pairs>(g.k)};
    small_code_columns_of<static_cast<int>(kSmallCodeRows)>(job, first, last);
  });
}

#endif
