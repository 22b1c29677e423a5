// Products of few rows of x with 4-bit codes, or with weights stored as bf16, by the tiles of AMX. What costs
// time there is decoding and packing, and w lies in rows of k, as a tile of x wants its operand: so w takes
// the place of x, and x that of w. Every sum has the same terms in the same order as in amx_tiles-inl.h, and
// comes out transposed.

#if QLORA_TILES

constexpr int64_t kAmxFewRows = 32;

template <>
bool small_rows_take<AmxTiles>(const GemmArgs& g) {
  if (g.m > kAmxFewRows || g.layout != Layout::nt) return false;
  if (g.codes == nullptr)
    return g.dense_bf16 != nullptr && g.k % kAmxDepth == 0 && g.n >= AmxTiles::kTileRows;
  return g.codes->bits == 4 && g.codes->cols % g.codes->block == 0 && g.codes->block % kAmxDepth == 0;
}

// Values [k, k + kc) of one row of w: a step of 32 to every kAmxStep-th place of `to`.
constexpr int64_t kAmxStep = AmxTiles::kTileRows * kLanes;
QLORA_INLINE void decode_row(Vec levels, int64_t block, const uint8_t* codes, const float* absmax, int64_t k,
                             int64_t kc, float* to) {
  // The usual blocks, two by two.
  if (block == 64 && k % 64 == 0 && kc % 128 == 0) {
    for (const float* end = to + kc / kAmxDepth * kAmxStep; to < end; codes += 64, absmax += 2, to += 4 * kAmxStep) {
      const WordTable table = word_table(levels * set1(absmax[0]), levels * set1(absmax[1]));
      istore(to, lookup_words<false>(table, codes));
      istore(to + kAmxStep, lookup_words<false>(table, codes + 16));
      istore(to + 2 * kAmxStep, lookup_words<true>(table, codes + 32));
      istore(to + 3 * kAmxStep, lookup_words<true>(table, codes + 48));
    }
    return;
  }
  int64_t done = 0;
  for (int64_t stop = block - k % block; done < kc; stop += block, ++absmax) {
    const Vec scaled = levels * set1(*absmax);
    const WordTable table = word_table(scaled, scaled);
    for (; done < smaller(kc, stop); done += kAmxDepth, codes += kAmxDepth / 2, to += kAmxStep)
      istore(to, lookup_words<false>(table, codes));
  }
}

// Rows [row, row + rows) of w, values [k0, k0 + kc) of k, as a tile of x.
QLORA_INLINE void decode_as_x(const Codes& w, int64_t row, int64_t rows, int64_t k0, int64_t kc, float* out) {
  const Vec levels = load(w.levels);
  const int64_t blocks = w.cols / w.block;
  const uint8_t* codes = w.data + (row * w.cols + k0) / 2;
  const float* absmax = w.absmax + row * blocks + k0 / w.block - w.first_block;
  // Rows of codes lie too far apart for a prefetcher of the machine: those that come after these are asked for here.
  const int64_t ahead = AmxTiles::kTileRows * w.cols / 2;
  for (int64_t i = 0; i < rows; ++i, codes += w.cols / 2, absmax += blocks) {
    for (int64_t b = 0; b < kc / 2; b += 64) __builtin_prefetch(codes + ahead + b, 0, 2);
    decode_row(levels, w.block, codes, absmax, k0, kc, out + i * kLanes);
  }
  for (int64_t step = 0; step < AmxTiles::steps(kc); ++step)
    for (int64_t i = rows; i < AmxTiles::kTileRows; ++i) store(out + step * kAmxStep + i * kLanes, zero());
}

// y[m, cols] = (add ? y : 0) + alpha * sums transposed, which are [cols, m], kNr wide.
QLORA_INLINE void add_transposed(const float* sums, int64_t m, int64_t cols, Destination d) {
  const FlushDenormals<true> flush;
  const Vec alpha = set1(d.alpha);
  for (int64_t c = 0; c < cols; c += kLanes)
    for (int64_t r = 0; r < m; r += kLanes) {
      IVec t[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) t[i] = as_int(load(sums + (c + i) * kNr + r));
      transpose16(t);
      const int64_t lanes = smaller(kLanes, cols - c);
      for (int64_t i = 0; i < smaller(kLanes, m - r); ++i) {
        float* y = d.y + (r + i) * d.ld + c;
        const Vec s = as_float(t[i]);
        store_some(y, d.add ? fma(alpha, s, load_some(y, lanes)) : alpha * s, lanes);
      }
    }
}

// Columns [column, column + cols) of y; `packed`: x, chunk after chunk. A chunk is decoded in pieces, each
// while the tiles multiply the one before.
constexpr int64_t kAmxPiece = 4 * kAmxDepth;
template <bool kManyRows>
static void amx_few_columns(const GemmArgs& g, const float* packed, int64_t column, int64_t cols) {
  constexpr int64_t kPieceFloats = kAmxPiece / 2 * AmxTiles::kTileRows;
  const int64_t chunk = chunk_of<AmxTiles>(g.k);
  alignas(64) float pieces[2][kPieceFloats];
  alignas(64) float sums[AmxTiles::kTileRows * kNr];
  const AmxTiles::Session session;
  for (int64_t k0 = 0; k0 < g.k; k0 += chunk) {
    const int64_t end = smaller(g.k, k0 + chunk);
    const auto length = [&](int64_t k) { return smaller(kAmxPiece, end - k); };
    zero_sums<true, kManyRows>();
    decode_as_x(*g.codes, column, cols, k0, length(k0), pieces[0]);
    int now = 0;
    for (int64_t k = k0; k < end; k += kAmxPiece, now ^= 1) {
      const int64_t next = k + kAmxPiece;
      if (next < end) decode_as_x(*g.codes, column, cols, next, length(next), pieces[now ^ 1]);
      dot_steps<true, kManyRows>(AmxTiles::steps(length(k)), pieces[now], packed + k * kLanes, [] {});
    }
    store_sums<true, kManyRows>(sums, kNr);
    add_transposed(sums, g.m, cols, {g.y + column, g.ldy, g.alpha, g.add || k0 > 0});
  }
}

// The same from stored bf16, where they lie: tiles are loaded with the stride of w. The last columns are
// those of a whole tile, of which the first ones are known already.
template <bool kManyRows>
static void amx_few_dense(const GemmArgs& g, const float* packed, int64_t column, int64_t cols) {
  constexpr int64_t kRows = AmxTiles::kTileRows;
  const int64_t chunk = chunk_of<AmxTiles>(g.k), known = column - smaller(column, g.n - kRows);
  const uint16_t* w = g.dense_bf16 + (column - known) * g.ldw;
  alignas(64) float sums[(kRows + kLanes) * kNr];
  const AmxTiles::Session session;
  for (int64_t k0 = 0; k0 < g.k; k0 += chunk) {
    zero_sums<true, kManyRows>();
    for (int64_t k = k0; k < smaller(g.k, k0 + chunk); k += kAmxDepth) {
      tile_load<4>(w + k, g.ldw * 2);
      tile_load<5>(w + kLanes * g.ldw + k, g.ldw * 2);
      tile_load<6>(packed + k * kLanes, kNr * 4);
      tile_dot<0, 4, 6>();
      tile_dot<2, 5, 6>();
      if constexpr (kManyRows) {
        tile_load<7>(packed + k * kLanes + kLanes, kNr * 4);
        tile_dot<1, 4, 7>();
        tile_dot<3, 5, 7>();
      }
    }
    store_sums<true, kManyRows>(sums, kNr);
    add_transposed(sums + known * kNr, g.m, cols, {g.y + column, g.ldy, g.alpha, g.add || k0 > 0});
  }
}

template <bool kManyRows>
static void amx_few(const GemmArgs& g, const float* packed, int64_t column, int64_t cols) {
  g.codes != nullptr ? amx_few_columns<kManyRows>(g, packed, column, cols)
                     : amx_few_dense<kManyRows>(g, packed, column, cols);
}

template <>
void small_rows<AmxTiles>(const GemmArgs& g) {
  const int64_t chunk = chunk_of<AmxTiles>(g.k), step = AmxTiles::kTileRows;
  float* x = cpu::scratch(cpu::Scratch::packed_x, g.k * kLanes);
  for (int64_t k0 = 0; k0 < g.k && !g.same_x; k0 += chunk)
    pack_w_as(AmxTiles{}, g.x + k0, g.ldx, false, g.m, smaller(chunk, g.k - k0), x + k0 * kLanes);
  parallel((g.n + step - 1) / step, weights_per_task(step * g.k), [&](int64_t begin, int64_t end) {
    GemmArgs task = g;
    Codes codes;
    if (g.codes != nullptr) {
      codes = with_scales(*g.codes, begin * step, smaller(g.n, end * step));
      task.codes = &codes;
    }
    for (int64_t i = begin; i < end; ++i) {
      const int64_t cols = smaller(step, g.n - i * step);
      g.m > kLanes ? amx_few<true>(task, x, i * step, cols) : amx_few<false>(task, x, i * step, cols);
    }
  });
}

#endif
