// What adapters add to a product y: scale * u w on some rows (Delta in kernels.h). Added to a tile of y right
// after its last chunk of k, so that y passes through memory once. Every delta has the bits of a product of
// its own that accumulates into y: tiles of its rows, chunks of its rank.

// u packed: the tile of y at t takes tile t - first_tile, whose first row is the delta's first in it.
template <class Operand>
QLORA_INLINE PackedX<Operand> packed_delta(const Delta& d) {
  return {d.packed, d.tiles, d.chunk};
}

// Of all panels of w of one column panel; a chunk that is no whole step of k needs more.
template <class Operand>
QLORA_INLINE int64_t delta_panel_floats(const Delta& d) {
  return (d.rank + Operand::kChunkStep) * kNr;
}
template <class Operand>
static int64_t delta_panel_floats(const GemmArgs& g) {
  int64_t floats = 0;
  for (int64_t i = 0; i < g.delta_count; ++i) floats += delta_panel_floats<Operand>(g.deltas[i]);
  return floats;
}

template <class Operand>
QLORA_INLINE void pack_delta_tile(const Delta& d, int64_t tile) {
  constexpr int64_t kRows = Operand::kTileRows;
  const PackedX<Operand> packed = packed_delta<Operand>(d);
  const int64_t t = d.first_tile + tile, row = larger(d.lo, t * kRows),
                rows = smaller(d.hi, (t + 1) * kRows) - row;
  for (int64_t k0 = 0; k0 < d.rank; k0 += packed.chunk) {
    const int64_t kc = smaller(packed.chunk, d.rank - k0);
    float* out = packed.at(tile, k0 / packed.chunk, kc);
    pack_x_as(Operand{}, d.u + (row - d.lo) * d.rank + k0, d.rank, false, rows, kc, out);
  }
}

// Packs the u of all deltas, and gives every delta its place among the panels.
template <class Operand>
static void pack_deltas(const GemmArgs& g) {
  constexpr int64_t kRows = Operand::kTileRows;
  int64_t floats = 0, panel = 0, rank = 1;
  int64_t tiles = 0;
  for (int64_t i = 0; i < g.delta_count; ++i) {
    Delta& d = g.deltas[i];
    d.first_tile = d.lo / kRows;
    d.tiles = (d.hi - 1) / kRows - d.first_tile + 1;
    d.chunk = chunk_of<Operand>(d.rank);
    d.panel = panel;
    floats += PackedX<Operand>::floats(d.tiles, d.rank, d.chunk);
    panel += delta_panel_floats<Operand>(d);
    rank = larger(rank, d.rank);
    tiles += d.tiles;
  }
  float* data = cpu::scratch(cpu::Scratch::delta, floats);
  for (int64_t i = 0; i < g.delta_count; ++i) {
    Delta& d = g.deltas[i];
    d.packed = data;
    data += PackedX<Operand>::floats(d.tiles, d.rank, d.chunk);
  }
  parallel(tiles, larger(1, 65536 / (kRows * rank)), [&](int64_t begin, int64_t end) {
    int64_t before = 0;
    for (int64_t i = 0; i < g.delta_count && before < end; ++i) {
      const int64_t here = g.deltas[i].tiles;
      for (int64_t t = larger(begin, before); t < smaller(end, before + here); ++t)
        pack_delta_tile<Operand>(g.deltas[i], t - before);
      before += here;
    }
  });
}

// amx_tiles-inl.h multiplies whole steps of k, of which a rank is a part: that much is packed, and zeros.
template <class Operand>
QLORA_INLINE void pack_delta_w(Operand, const float* w, int64_t ld, bool by_rank, int64_t cols, int64_t kc,
                               float* out) {
  pack_w_as(Operand{}, w, ld, by_rank, cols, kc, out);
}
#if QLORA_TILES
QLORA_INLINE void pack_delta_w(AmxTiles, const float* w, int64_t ld, bool by_rank, int64_t cols, int64_t kc,
                               float* out) {
  if (by_rank || cols < kNr || kc % 8 != 0 || kc >= kAmxDepth)
    return pack_w_as(AmxTiles{}, w, ld, by_rank, cols, kc, out);
  for (int64_t j = 0; j < kNr; j += kLanes)
    for (int64_t k = 0; k < kc; k += 8) {
      IVec r[4];
      pairs_of_eight(w + j * ld + k, ld, r);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) istore(out + (k / 2 + i) * kNr + j, r[i]);
    }
  complete_step(out, kc);
}
#endif

// Asks for what pack_delta_panels() will read: with many runs, w comes from memory.
QLORA_INLINE void prefetch_delta_panels(const GemmArgs& g, int64_t rows_begin, int64_t rows_end,
                                        int64_t column, int64_t cols) {
  for (int64_t i = 0; i < g.delta_count; ++i) {
    const Delta& d = g.deltas[i];
    if (d.hi <= rows_begin || d.lo >= rows_end) continue;
    const bool by_rank = g.layout != Layout::nt;
    const int64_t rows = by_rank ? d.rank : 1, floats = by_rank ? cols : cols * d.rank;
    const float* w = d.w + (by_rank ? column : column * d.rank);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < floats; c += 16) __builtin_prefetch(w + r * g.n + c, 0, 2);
  }
}

// Columns [column, column + cols) of the w of all deltas that touch rows [rows_begin, rows_end) of y.
template <class Operand>
static void pack_delta_panels(const GemmArgs& g, int64_t rows_begin, int64_t rows_end, int64_t column,
                              int64_t cols, float* panels) {
  const bool by_rank = g.layout != Layout::nt;
  for (int64_t i = 0; i < g.delta_count; ++i) {
    const Delta& d = g.deltas[i];
    if (d.hi <= rows_begin || d.lo >= rows_end) continue;
    for (int64_t k0 = 0; k0 < d.rank; k0 += d.chunk) {
      const int64_t kc = smaller(d.chunk, d.rank - k0);
      const float* w = d.w + (by_rank ? k0 * g.n + column : column * d.rank + k0);
      float* out = panels + d.panel + k0 * kNr;
      pack_delta_w(Operand{}, w, by_rank ? g.n : d.rank, by_rank, cols, kc, out);
    }
  }
}

// y += what dropout keeps of `share`, a tile of it; `row` counts from the first that has bits.
QLORA_INLINE void add_kept(const float* share, const Kept& kept, int64_t row, int64_t rows, int64_t column,
                           int64_t cols, float* y, int64_t ld) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; c += kLanes) {
      const int64_t lanes = smaller(kLanes, cols - c);
      const uint32_t bits = load_bits(kept.bits + (row + r) * kept.ld + (column + c) / 8);
      const Vec some = keep(load(share + r * kNr + c) * set1(kept.factor), bits);
      store_some(y + r * ld + c, load_some(y + r * ld + c, lanes) + some, lanes);
    }
}

// To the tile of y at t, columns [column, column + cols).
template <class Operand>
static void add_deltas(const GemmArgs& g, int64_t t, int64_t column, int64_t cols, const float* panels) {
  for (int64_t i = 0; i < g.delta_count; ++i) {
    constexpr int64_t kRows = Operand::kTileRows;
    const Delta& d = g.deltas[i];
    const int64_t row = larger(d.lo, t * kRows), rows = smaller(d.hi, (t + 1) * kRows) - row;
    if (rows <= 0) continue;
    const PackedX<Operand> packed = packed_delta<Operand>(d);
    const bool drops = d.kept.bits != nullptr;
    float* y = g.y + row * g.ldy + column;
    alignas(64) float share[kRows * kNr];
    int64_t number = 0;
    for (int64_t k0 = 0; k0 < d.rank; k0 += d.chunk, ++number) {
      const int64_t kc = smaller(d.chunk, d.rank - k0);
      Destination to{y, g.ldy, d.scale, true};
      if (drops) to = {share, kNr, d.scale, k0 > 0};
      multiply_tile(Operand{}, rows, kc, packed.at(t - d.first_tile, number, kc), panels + d.panel + k0 * kNr,
                    to, drops ? kNr : cols);
    }
    if (drops) add_kept(share, d.kept, row - d.lo, rows, column, cols, y, g.ldy);
  }
}
