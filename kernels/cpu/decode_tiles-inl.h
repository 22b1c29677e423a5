// The decode class (decode_rows-inl.h) by the tiles of AMX, for many rows of x: a tile holds bytes of one
// segment of sixteen outputs, or of as many rows. A whole number is its upper byte, signed, and its lower
// one; products of bytes are summed in a tile for each place that they have, which then come together in 32
// bits: the whole sums of decode_dots*-inl.h, and so the same bits.

#if QLORA_TILES

constexpr int64_t kTileOutputs = 16, kTileBytes = kTileOutputs * kSegment;

// Up to sixteen rows of x: for every segment its upper, then its lower bytes, [fours of k][rows][4], and
// sixteen scales, zeros behind those of the rows.
struct TileX {
  const uint8_t* bytes;
  const float* scales;
  int64_t rows;
};

// Bytes of 32 whole numbers.
QLORA_INLINE void split_bytes(__m256i first, __m256i last, uint8_t* upper, uint8_t* lower) {
  const __m256i byte = _mm256_set1_epi16(255);
  const auto write = [](uint8_t * to, __m256i v) __attribute__((always_inline)) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(v, 0xd8));
  };
  write(upper, _mm256_packs_epi16(_mm256_srai_epi16(first, 8), _mm256_srai_epi16(last, 8)));
  write(lower, _mm256_packus_epi16(_mm256_and_si256(first, byte), _mm256_and_si256(last, byte)));
}

// A segment rounded, in the order of its levels: of 4-bit codes the elements at even places, which are the
// upper halves of bytes, then those at odd ones.
template <int kBits>
QLORA_INLINE void round_bytes(const float* x, __m256 factor, uint8_t* upper, uint8_t* lower) {
  __m256i w[4];
  for (int i = 0; i < 4; ++i) w[i] = whole_sixteen(x + 16 * i, factor);
  if constexpr (kBits == 4) {
    const __m256i a = evens_then_odds(w[0]), b = evens_then_odds(w[1]);
    const __m256i c = evens_then_odds(w[2]), d = evens_then_odds(w[3]);
    w[0] = _mm256_permute2x128_si256(a, b, 0x20);
    w[1] = _mm256_permute2x128_si256(c, d, 0x20);
    w[2] = _mm256_permute2x128_si256(a, b, 0x31);
    w[3] = _mm256_permute2x128_si256(c, d, 0x31);
  }
  split_bytes(w[0], w[1], upper, lower);
  split_bytes(w[2], w[3], upper + 32, lower + 32);
}

// Writes segments of `rows` rows of x as TileX has them, and 64 bytes more at most.
template <int kBits>
static void pack_tiles(const float* x, int64_t k, int64_t rows, float level_scale, uint8_t* bytes,
                       float* scales) {
  alignas(64) uint8_t halves[2][16][kSegment];
  for (int64_t i = 0; i < k; i += kSegment, scales += kLanes) {
    store(scales, zero());
    for (int64_t r = 0; r < rows; ++r) {
      const Rounding rounding = rounding_of(x + r * k + i, level_scale);
      scales[r] = rounding.scale;
      round_bytes<kBits>(x + r * k + i, rounding.factor, halves[0][r], halves[1][r]);
    }
    for (const auto& half : halves) {
      IVec t[16];
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) t[r] = r < rows ? iload(half[r]) : iset1(0);
      transpose16(t);
      for (int q = 0; q < 16; ++q, bytes += 4 * rows) istore(bytes, t[q]);
    }
  }
}

// Of sixteen outputs, a segment each: bytes of levels, the upper ones and then the lower. 8-bit codes are
// levels already.
QLORA_INLINE void prepare_levels(const LevelBytes& t, const uint8_t* codes, int64_t ld, uint8_t* levels) {
#pragma GCC unroll 4
  for (int o = 0; o < kTileOutputs; ++o)
    level_bytes(t, codes + o * ld, levels + o * kSegment, levels + kTileBytes + o * kSegment);
}
QLORA_INLINE void prepare_levels(const DotBytes&, const uint8_t*, int64_t, uint8_t*) {}

// Sums of products of bytes, of those of one segment: tile 0 counts 2^16, tile 1 2^8, tile 2 one, or with
// 8-bit codes tile 0 2^8 and tile 1 one.
QLORA_INLINE void multiply_bytes(const LevelBytes&, const uint8_t*, int64_t, const uint8_t* levels,
                                 const uint8_t* x, int64_t rows) {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_load<4>(levels, kSegment);
  tile_load<6>(x, 4 * rows);
  tile_dot_bytes<0, 4, 6, true, true>();
  tile_load<7>(x + kSegment * rows, 4 * rows);
  tile_dot_bytes<1, 4, 7, true, false>();
  tile_load<5>(levels + kTileBytes, kSegment);
  tile_dot_bytes<2, 5, 7, false, false>();
  tile_dot_bytes<1, 5, 6, false, true>();
}
QLORA_INLINE void multiply_bytes(const DotBytes&, const uint8_t* codes, int64_t ld, const uint8_t*,
                                 const uint8_t* x, int64_t rows) {
  tile_zero<0>();
  tile_zero<1>();
  tile_load_passing<4>(codes, ld);
  tile_load<6>(x, 4 * rows);
  tile_dot_bytes<0, 4, 6, true, true>();
  tile_load<7>(x + kSegment * rows, 4 * rows);
  tile_dot_bytes<1, 4, 7, true, false>();
}

template <int kBits>
QLORA_INLINE void store_wholes(int32_t (&to)[3][256]) {
  tile_store<0>(to[0], 64);
  tile_store<1>(to[1], 64);
  if constexpr (kBits == 4) tile_store<2>(to[2], 64);
}
template <int kBits>
QLORA_INLINE IVec whole_sum(const int32_t (&w)[3][256], int output) {
  const auto of = [&](int tile) { return iload(w[tile] + kLanes * output); };
  if constexpr (kBits == 8) return shift_left<8>(of(0)) + of(1);
  return shift_left<16>(of(0)) + (shift_left<8>(of(1)) + of(2));
}

// Which sixteen outputs, from `column` on, and which of their segments: in the order of the sums.
struct TileStep {
  int64_t segments, column, segment = 0;
  bool ends_sum() const { return segment + kSums >= segments; }
  bool ends_outputs() const { return ends_sum() && segment % kSums + 1 >= smaller(kSums, segments); }
  void next() {
    if (ends_outputs()) {
      column += kTileOutputs;
      segment = 0;
    } else {
      segment = ends_sum() ? segment % kSums + 1 : segment + kSums;
    }
  }
};

// One task: outputs [begin, end) of a term, with a scale a segment of those from scaled_from on, times rows
// of x from `row` on.
template <class Levels>
struct TileJob {
  const DecodeArgs& a;
  const DecodeTerm& term;
  const Levels& levels;
  const float* scales;
  int64_t scaled_from, begin, end;
  TileX x;
  int64_t row;
  // The sixteen of a column; there are always as many.
  int64_t first_of(int64_t column) const { return smaller(column, term.w.rows - kTileOutputs); }
};

// y of the sixteen outputs from `column` on, of which the first may be known already.
template <class Levels>
QLORA_INLINE void write_outputs(const TileJob<Levels>& job, int64_t column, const float* sums) {
  const int64_t known = column - job.first_of(column), lanes = smaller(kTileOutputs, job.end - column);
  IVec t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) t[i] = iload(sums + (known + i) * kLanes);
  transpose16(t);
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) {
    if (r >= job.x.rows) break;
    float* y = job.term.y + (job.row + r) * job.term.w.rows + column;
    const Vec sum = as_float(t[r]);
    store_some(y, job.a.add ? load_some(y, lanes) + sum : sum, lanes);
  }
}

// Adds a segment's whole sums, times their scales, to sum s of sixteen outputs.
template <class Levels>
QLORA_INLINE void add_wholes(const TileJob<Levels>& job, const TileStep& step,
                             const int32_t (&wholes)[3][256], Vec (&s)[16]) {
  const Vec x_scales = load(job.x.scales + step.segment * kLanes);
  const float* scales =
      job.scales + (job.first_of(step.column) - job.scaled_from) * step.segments + step.segment;
#pragma GCC unroll 16
  for (int o = 0; o < 16; ++o)
    s[o] =
        fma(set1(scales[o * step.segments]) * x_scales, to_float(whole_sum<Levels::kBits>(wholes, o)), s[o]);
}

// Where they wait: sums 0 and 1 of sixteen outputs, 2 and 3; more is read behind the first half.
struct alignas(64) TileSums {
  float pair[2][256];
  void add(int64_t number, Vec (&s)[16]) {
    float* sum = pair[number / 2];
#pragma GCC unroll 16
    for (int o = 0; o < 16; ++o, sum += kLanes) {
      store(sum, number % 2 == 0 ? s[o] : load(sum) + s[o]);
      s[o] = zero();
    }
  }
  const float* all(int64_t count) {
    for (int i = 0; i < 256; i += kLanes)
      store(pair[0] + i, load(pair[0] + i) + (count > 2 ? load(pair[1] + i) : zero()));
    return pair[0];
  }
};

// What comes from memory waits before it is read there: levels are looked up two segments before the tiles
// multiply them, and whole sums are added while the tiles are at the next segment.
template <class Levels>
static void tile_outputs(const TileJob<Levels>& job) {
  constexpr int64_t kBits = Levels::kBits, kCodes = kSegment * kBits / 8, kLines = kTileOutputs * kCodes / 64;
  const Codes& w = job.term.w;
  const int64_t segments = w.cols / kSegment, ld = w.cols * kBits / 8, rows = job.x.rows;
  const int64_t steps = (job.end - job.begin + kTileOutputs - 1) / kTileOutputs * segments;
  alignas(64) uint8_t levels[3][2 * kTileBytes];
  alignas(64) int32_t wholes[2][3][256] = {};
  TileSums sums;
  const TilesOn tiles(rows);
  const auto codes_of = [&](const TileStep& s) __attribute__((always_inline)) {
    return w.data + job.first_of(s.column) * ld + s.segment * kCodes;
  };
  TileStep prepared{segments, job.begin}, multiplied = prepared, added = prepared;
  const uint8_t* ahead = codes_of(prepared) + larger(kAhead, kTileOutputs * ld);
  const auto prepare = [&](int64_t step) __attribute__((always_inline)) {
    if (step >= steps) return;
    prepare_levels(job.levels, codes_of(prepared), ld, levels[step % 3]);
    prepared.next();
  };
  prepare(0);
  prepare(1);
  Vec s[16];
#pragma GCC unroll 16
  for (int o = 0; o < 16; ++o) s[o] = zero();
  for (int64_t i = 0; i <= steps; ++i) {
    if (i < steps)
      multiply_bytes(job.levels, codes_of(multiplied), ld, levels[i % 3],
                     job.x.bytes + multiplied.segment * 2 * kSegment * rows, rows);
    for (int line = 0; line < kLines; ++line, ahead += 64) __builtin_prefetch(ahead, 0, 2);
    prepare(i + 2);
    if (i > 0) {
      add_wholes(job, added, wholes[(i - 1) % 2], s);
      if (added.ends_sum()) sums.add(added.segment % kSums, s);
      if (added.ends_outputs()) write_outputs(job, added.column, sums.all(segments));
      added.next();
    }
    if (i == steps) break;
    store_wholes<kBits>(wholes[i % 2]);
    multiplied.next();
  }
}

QLORA_INLINE int64_t sixteens_of(const DecodeTerm& term) {
  return (term.w.rows + kTileOutputs - 1) / kTileOutputs;
}

// Outputs of sixteens [begin, end) of a term.
template <class Levels>
static void tile_task(const DecodeArgs& a, const DecodeTerm& term, const Levels& levels, const uint8_t* bytes,
                      const float* x_scales, int64_t begin, int64_t end) {
  const int64_t k = term.w.cols, segments = k / kSegment;
  const int64_t first = smaller(begin * kTileOutputs, term.w.rows - kTileOutputs),
                last = smaller(end * kTileOutputs, term.w.rows);
  const float* scales = segment_scales(term.w, first, last);
  for (int64_t row = 0; row < a.rows; row += kLanes) {
    const TileX x{bytes + row * k * 2, x_scales + row * segments, smaller(kLanes, a.rows - row)};
    tile_outputs<Levels>({a, term, levels, scales, first, begin * kTileOutputs, last, x, row});
  }
}

template <class Levels>
static void decode_tiles_of(const DecodeArgs& a, const Levels& levels, float level_scale) {
  const int64_t k = a.terms[0].w.cols, segments = k / kSegment,
                groups = (a.rows + kLanes - 1) / kLanes * kLanes;
  float* x_scales = cpu::scratch(cpu::Scratch::packed_x, groups * segments + a.rows * k / 2 + kLanes);
  auto* bytes = reinterpret_cast<uint8_t*>(x_scales + groups * segments);
  for (int64_t row = 0; row < a.rows; row += kLanes)
    pack_tiles<Levels::kBits>(a.x + row * k, k, smaller(kLanes, a.rows - row), level_scale,
                              bytes + row * k * 2, x_scales + row * segments);
  int64_t sixteens = 0;
  for (int64_t i = 0; i < a.count; ++i) sixteens += sixteens_of(a.terms[i]);
  parallel(sixteens, (eights_per_task(2 * sixteens, k) + 1) / 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0, before = 0; i < a.count && before < end; before += sixteens_of(a.terms[i++])) {
      const int64_t first = larger(0, begin - before), last = smaller(sixteens_of(a.terms[i]), end - before);
      if (first < last) tile_task(a, a.terms[i], levels, bytes, x_scales, first, last);
    }
  });
}

// From how many rows on: levels of 4-bit codes cost more to bring into tiles.
constexpr int64_t kTileRowsFrom4 = 8, kTileRowsFrom8 = 6;

static bool decode_rows_amx(const DecodeArgs& a) {
  if (!decode_fits(a)) return false;
  bool tiles = a.rows >= (a.terms[0].w.bits == 8 ? kTileRowsFrom8 : kTileRowsFrom4);
  for (int64_t i = 0; i < a.count; ++i) tiles = tiles && a.terms[i].w.rows >= kTileOutputs;
  if (!tiles) return decode_rows(a);
  if (a.terms[0].w.bits == 8) {
    decode_tiles_of(a, DotBytes(), 1.0f / 127);
  } else {
    const WholeLevels whole(a.terms[0].w.levels);
    decode_tiles_of(a, LevelBytes(whole), whole.scale);
  }
  return true;
}

#else

static bool decode_rows_amx(const DecodeArgs& a) {
  return decode_rows(a);
}

#endif
