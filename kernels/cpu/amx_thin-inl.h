// Thin products over rows of x or dy, u and its gradient, by the tiles of AMX. The sum runs along these rows,
// as a tile of x wants its operand: so the wide side takes the place of x, as it lies, and the thin side that
// of w. What is transposed or filled up with zeros is a rank wide. Every sum has the same terms in the same
// order as in thin-inl.h.

#if QLORA_TILES

QLORA_INLINE bool thin_by_rows(AmxTiles, const ThinProduct& g) {
  return g.y_by_n && !g.wide_by_k;
}

// How many values of the thin side are asked for ahead, or of each of its rows an eighth of them: with many
// runs an adapter is read from memory once, in rows too short to be followed.
constexpr int64_t kThinAhead = 512;

// Columns [0, cols) of a panel of w, at most sixteen: rows [row, row + cols) of the thin side.
QLORA_INLINE void pack_thin_half(const ThinProduct& g, int64_t row, int64_t cols, int64_t k0, int64_t kc,
                                 float* out) {
  if (g.thin_by_k) {
    const float* p = g.thin + k0 * g.m + row;
    for (int64_t k = 0; k < kc; k += 2) {
      __builtin_prefetch(p + k * g.m + kThinAhead);
      istore(out + k / 2 * kNr, pair_of_rows(p + k * g.m, g.m, k + 1 < kc, cols));
    }
  } else {
    const float* p = g.thin + row * g.k + k0;
    const auto pairs = [&](int64_t i, int64_t k, int64_t n) {
      for (int64_t line = 0; line < kAmxDepth; line += kLanes)
        __builtin_prefetch(p + i * g.k + k + kThinAhead / 8 + line);
      return load_pairs(p + i * g.k + k, n);
    };
    if (cols == kLanes / 2)
      transpose_pairs_of<kLanes / 2>(cols, kc, out, kNr, pairs);
    else
      transpose_pairs(cols, kc, out, kNr, pairs);
  }
  for (int64_t j = (kc + 1) / 2; j < AmxTiles::steps(kc) * kLanes; ++j) store(out + j * kNr, zero());
}

// A panel of w for rows [row, row + rows) of the thin side; its second half is nothing where nobody reads it.
QLORA_INLINE void pack_thin_panel(AmxTiles, const ThinProduct& g, int64_t row, int64_t rows, int64_t k0,
                                  int64_t kc, float* out) {
  pack_thin_half(g, row, smaller(kLanes, rows), k0, kc, out);
  if (rows > kLanes) pack_thin_half(g, row + kLanes, rows - kLanes, k0, kc, out + kLanes);
}

// A tile of x: rows [row, row + rows) of wide, or what dropout keeps of them.
template <class T>
QLORA_INLINE void pack_wide_rows(const ThinProduct& g, const T* wide, const Kept& kept, int64_t row,
                                 int64_t rows, int64_t k0, int64_t kc, float* out) {
  const T* p = wide + row * g.k + k0;
  if (!g.drops) return pack_tiles_of_rows(p, g.k, rows, kc, out);
  for (int64_t k = 0; k < kc; k += kAmxDepth, out += AmxTiles::kTileRows * kLanes) {
    for (int64_t i = 0; i < rows; ++i)
      istore(out + i * kLanes,
             load_kept_pairs(p + i * g.k + k, kc - k, kept.bits + i * kept.ld + (k0 + k) / 8));
    for (int64_t i = rows; i < AmxTiles::kTileRows; ++i) store(out + i * kLanes, zero());
  }
}

// Rows of y of panel p. `kept`: bits of its first row.
QLORA_INLINE void thin_rows(AmxTiles, const ThinProduct& g, const Kept& kept, int64_t p, float* tile) {
  const int64_t row = p * kNr, rows = smaller(kNr, g.n - row), width = thin_tile_rows<AmxTiles>(g);
  bool add = g.add;
  for (ThinChunks<AmxTiles> c(g); c.next(); add = true) {
    with_wide<AmxTiles>(
        g, [&](const auto* wide) { pack_wide_rows(g, wide, kept, row, rows, c.k0, c.kc, tile); });
    const AmxTiles::Session session;
    for (int64_t t = 0; t < thin_tiles<AmxTiles>(g); ++t) {
      const int64_t column = t * width;
      multiply_tile(AmxTiles{}, rows, c.kc, tile, thin_tile(g, t, c),
                    {g.y + row * g.m + column, g.m, g.alpha, add}, smaller(width, g.m - column));
    }
  }
}

#endif
