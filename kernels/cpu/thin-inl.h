// Products with a thin side, a rank (ThinProduct in kernels.h): u and its gradient, and the gradients of both
// matrices of an adapter, of all adapters of a call at once. The thin side is packed as rows of tiles, so
// that a rank of 8 fills the machine as well as one of 64; the wide side is packed one panel at a time, or
// some panels together where they lie beside each other in memory, and used at once, so that it passes
// through memory once. Every result has the bits of gemm.

// Rows of a tile: the rank in equal parts.
template <class Operand>
QLORA_INLINE int64_t thin_tiles(const ThinProduct& g) {
  return (g.m + Operand::kTileRows - 1) / Operand::kTileRows;
}
template <class Operand>
QLORA_INLINE int64_t thin_tile_rows(const ThinProduct& g) {
  return (g.m + thin_tiles<Operand>(g) - 1) / thin_tiles<Operand>(g);
}
QLORA_INLINE int64_t thin_panels(const ThinProduct& g) {
  return (g.n + kNr - 1) / kNr;
}

// Walks the chunks of the sum: for (ThinChunks<Operand> c(g); c.next();) ...
template <class Operand>
class ThinChunks {
 public:
  int64_t k0 = 0, kc = 0;
  int64_t floats = 0;  // of a packed tile, before this chunk
  explicit ThinChunks(const ThinProduct& g) : g_(g) {}
  bool next() {
    k0 += kc;
    if (kc > 0) floats += Operand::tile_floats(kc);
    if (k0 == end_ && !next_stretch()) return false;
    kc = smaller(chunk_, end_ - k0);
    return true;
  }

 private:
  // All of k, or the rows of the next sequence.
  bool next_stretch() {
    if (g_.sequences == nullptr) {
      if (end_ == g_.k) return false;
      end_ = g_.k;
    } else {
      do {
        if (sequence_ == g_.sequence_count) return false;
        k0 = larger(g_.sequences[sequence_] - g_.first_row, 0);
        end_ = smaller(g_.sequences[sequence_ + 1] - g_.first_row, g_.k);
        ++sequence_;
      } while (end_ <= k0);
    }
    chunk_ = chunk_of<Operand>(end_ - k0);
    return true;
  }

  const ThinProduct& g_;
  int64_t sequence_ = 0, end_ = 0, chunk_ = 1;
};

template <class Operand>
QLORA_INLINE float* thin_tile(const ThinProduct& g, int64_t t, const ThinChunks<Operand>& c) {
  return g.packed + thin_tiles<Operand>(g) * c.floats + t * Operand::tile_floats(c.kc);
}

// amx_thin-inl.h: another way for products over rows of wide.
template <class Operand>
QLORA_INLINE bool thin_by_rows(Operand, const ThinProduct&) {
  return false;
}
template <class Operand>
QLORA_INLINE void pack_thin_panel(Operand, const ThinProduct&, int64_t, int64_t, int64_t, int64_t, float*) {}
template <class Operand>
QLORA_INLINE void thin_rows(Operand, const ThinProduct&, const Kept&, int64_t, float*) {}

template <class Operand>
static void pack_thin(const ThinProduct& g, int64_t t) {
  const int64_t tile_rows = thin_tile_rows<Operand>(g), row = t * tile_rows,
                rows = smaller(tile_rows, g.m - row);
  for (ThinChunks<Operand> c(g); c.next();) {
    if (thin_by_rows(Operand{}, g)) {
      pack_thin_panel(Operand{}, g, row, rows, c.k0, c.kc, thin_tile(g, t, c));
      continue;
    }
    const float* p = g.thin + (g.thin_by_k ? c.k0 * g.m + row : row * g.k + c.k0);
    float* tile = thin_tile(g, t, c);
    pack_x_as(Operand{}, p, g.thin_by_k ? g.m : g.k, g.thin_by_k, rows, c.kc, tile);
  }
}

// transpose_rows of what dropout keeps; bits and their stride in bytes are those of p. k is a multiple of 8.
template <class T>
QLORA_INLINE void transpose_kept(const T* p, int64_t ld, int64_t rows, int64_t kc, const uint8_t* bits,
                                 int64_t bits_ld, float* out) {
  int64_t k = 0;
  for (; k + 8 <= kc; k += 8) {
    __m256 r[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i)
      r[i] = i < rows ? keep8(load8(p + i * ld + k), bits[i * bits_ld + k / 8]) : _mm256_setzero_ps();
    transpose8(r);
    for (int i = 0; i < 8; ++i) _mm256_storeu_ps(out + (k + i) * kNr, r[i]);
  }
  for (; k < kc; ++k)
    for (int i = 0; i < 8; ++i)
      out[k * kNr + i] =
          i < rows && (bits[i * bits_ld + k / 8] >> (k % 8) & 1) != 0 ? load1(p + i * ld + k) : 0.0f;
}

// What dropout keeps of `cols` (or more) columns of row k of wide, from `column` on.
template <class T>
QLORA_INLINE Vec kept_of_row(const ThinProduct& g, const T* wide, const Kept& kept, int64_t k, int64_t column,
                             int64_t cols) {
  if (cols <= 0) return zero();
  const Vec x = load_some(wide + k * g.n + column, smaller(kLanes, cols));
  return keep(x, load_bits(kept.bits + k * kept.ld + column / 8));
}

// The panel of what dropout keeps of wide at column n = column, values [k0, k0 + kc) of k.
template <class Operand, class T>
QLORA_INLINE void pack_kept_as(Operand, const ThinProduct& g, const T* wide, const Kept& kept, int64_t k0,
                               int64_t kc, int64_t column, int64_t cols, float* out) {
  if (g.wide_by_k) {
    for (int64_t k = 0; k < kc; ++k)
      for (int64_t j = 0; j < kNr; j += kLanes)
        store(out + k * kNr + j, kept_of_row(g, wide, kept, k0 + k, column + j, cols - j));
  } else {
    // Bits of a task's own start at its first row.
    for (int64_t j = 0; j < kNr; j += 8)
      transpose_kept(wide + (column + j) * g.k + k0, g.k, cols - j, kc, kept.bits + j * kept.ld + k0 / 8,
                     kept.ld, out + j);
  }
  Operand::finish(out, kc, kNr, sizeof(T) == sizeof(uint16_t));
}

#if QLORA_PAIRS
// n (or more) of 32 values of a row whose bits are these, as pairs; zeros beyond n.
template <class T>
QLORA_INLINE IVec load_kept_pairs(const T* p, int64_t n, const uint8_t* bits) {
  uint32_t on = 0;
  if (n >= 2 * kLanes)
    __builtin_memcpy(&on, bits, 4);
  else  // the row of bits may end here
    for (int64_t i = 0; 8 * i < n; ++i) on |= static_cast<uint32_t>(bits[i]) << (8 * i);
  const Vec first = load_some(p, smaller(n, kLanes));
  const Vec second = load_some(p + kLanes, larger(0, smaller(n - kLanes, kLanes)));
  return narrow(keep(first, on & 0xffff), keep(second, on >> 16));
}

template <class T>
QLORA_INLINE void pack_kept_as(Bf16Pairs, const ThinProduct& g, const T* wide, const Kept& kept, int64_t k0,
                               int64_t kc, int64_t column, int64_t cols, float* out) {
  if (g.wide_by_k) {
    const auto row = [&](int64_t k, int64_t j) {
      return k < kc ? kept_of_row(g, wide, kept, k0 + k, column + j, cols - j) : zero();
    };
    for (int64_t k = 0; k < kc; k += 2) {
      if (k + kRowsAhead < kc) {
        __builtin_prefetch(wide + (k0 + k + kRowsAhead) * g.n + column);
        __builtin_prefetch(wide + (k0 + k + kRowsAhead + 1) * g.n + column);
      }
      for (int64_t j = 0; j < kNr; j += kLanes) istore(out + k / 2 * kNr + j, pair(row(k, j), row(k + 1, j)));
    }
    return;
  }
  for (int64_t j = 0; j < kNr; j += kLanes)
    transpose_pairs(larger(0, smaller(kLanes, cols - j)), kc, out + j, kNr,
                    [&](int64_t i, int64_t k, int64_t n) {
                      return load_kept_pairs(wide + (column + j + i) * g.k + k0 + k, n,
                                             kept.bits + (j + i) * kept.ld + (k0 + k) / 8);
                    });
}
#endif
#if QLORA_TILES
template <class T>
QLORA_INLINE void pack_kept_as(AmxTiles, const ThinProduct& g, const T* wide, const Kept& kept, int64_t k0,
                               int64_t kc, int64_t column, int64_t cols, float* out) {
  pack_kept_as(Bf16Pairs{}, g, wide, kept, k0, kc, column, cols, out);
  complete_step(out, kc);
}
#endif

// body(wide) with wide as it is stored.
template <class Operand, class Body>
QLORA_INLINE void with_wide(const ThinProduct& g, const Body& body) {
  if constexpr (Operand::kFlush) {
    if (g.wide_bf16 != nullptr) return body(g.wide_bf16);
  }
  body(g.wide);
}

// The panel of wide at column n = column, values [k0, k0 + kc) of k. `kept`: what is read through bits.
template <class Operand>
QLORA_INLINE void pack_wide(const ThinProduct& g, const Kept& kept, int64_t k0, int64_t kc, int64_t column,
                            int64_t cols, float* out) {
  with_wide<Operand>(g, [&](const auto* wide) {
    if (g.drops) return pack_kept_as(Operand{}, g, wide, kept, k0, kc, column, cols, out);
    const auto* p = wide + (g.wide_by_k ? k0 * g.n + column : column * g.k + k0);
    pack_w_as(Operand{}, p, g.wide_by_k ? g.n : g.k, g.wide_by_k, cols, kc, out);
  });
}

// y[j, i] = sums[i, j] for i < m, j < cols: sums are kNr wide, y has g.m.
QLORA_INLINE void store_by_n(const ThinProduct& g, const float* sums, int64_t column, int64_t cols) {
  for (int64_t i = 0; i < g.m; i += 8) {
    const int64_t rows = smaller(8, g.m - i);
    for (int64_t j = 0; j < cols; j += 8) {
      __m256 r[8];
      for (int64_t n = 0; n < 8; ++n) r[n] = n < rows ? load8(sums + (i + n) * kNr + j) : _mm256_setzero_ps();
      transpose8(r);
      float* y = g.y + (column + j) * g.m + i;
      for (int64_t n = 0; n < smaller(8, cols - j); ++n) {
        if (rows == 8)
          _mm256_storeu_ps(y + n * g.m, r[n]);
        else
          _mm256_maskstore_ps(y + n * g.m, eight_below(rows), r[n]);
      }
    }
  }
}
QLORA_INLINE void load_by_n(const ThinProduct& g, float* sums, int64_t column, int64_t cols) {
  for (int64_t i = 0; i < g.m; i += 8) {
    const int64_t rows = smaller(8, g.m - i);
    for (int64_t j = 0; j < kNr; j += 8) {
      const float* y = g.y + (column + j) * g.m + i;
      __m256 r[8];
      for (int64_t n = 0; n < 8; ++n)
        r[n] = n < cols - j ? _mm256_maskload_ps(y + n * g.m, eight_below(rows)) : _mm256_setzero_ps();
      transpose8(r);
      for (int64_t n = 0; n < rows; ++n) _mm256_storeu_ps(sums + (i + n) * kNr + j, r[n]);
    }
  }
}

// Asks for the columns of y that a panel adds to.
QLORA_INLINE void prefetch_sums(const ThinProduct& g, int64_t column, int64_t cols) {
  const int64_t rows = g.y_by_n ? 1 : g.m, floats = g.y_by_n ? cols * g.m : cols;
  const float* y = g.y + (g.y_by_n ? column * g.m : column);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < floats; c += 16) __builtin_prefetch(y + r * g.n + c, 1);
}

// Of one panel, the thin side is packed by the task that multiplies.
template <class Operand>
QLORA_INLINE int64_t thin_tiles_apart(const ThinProduct& g) {
  return thin_panels(g) > 1 ? thin_tiles<Operand>(g) : 0;
}

// What a task multiplies: panels [begin, begin + count) of wide, packed one behind another.
constexpr int64_t kPanelsTogether = 8;
// Rows of wide that are packed for all of them before the next: so many, that memory is read in long pieces.
constexpr int64_t kSlab = 32;
template <class Operand>
struct WidePanels {
  int64_t begin, count;
  float* packed;
  static int64_t floats_of_one(int64_t k) {
    constexpr int64_t kStep = Operand::kChunkStep;
    const int64_t depth = smaller(Operand::kChunkMax, (k + kStep - 1) / kStep * kStep);
    return depth * Operand::kBytes / 4 * kNr;
  }
  WidePanels(const ThinProduct& g, int64_t first, int64_t n)
      : begin(first),
        count(n),
        packed(cpu::scratch(cpu::Scratch::packed_w, n * floats_of_one(g.k))),
        stride_(floats_of_one(g.k)) {}
  float* at(int64_t p) const { return packed + (p - begin) * stride_; }

  // Values [k0, k0 + kc) of k.
  void pack(const ThinProduct& g, const Kept& kept, int64_t k0, int64_t kc) const {
    const int64_t slab = g.wide_by_k ? kSlab : kc;
    for (int64_t k = 0; k < kc; k += slab)
      for (int64_t p = begin; p < begin + count; ++p)
        pack_wide<Operand>(g, kept, k0 + k, smaller(slab, kc - k), p * kNr, smaller(kNr, g.n - p * kNr),
                           at(p) + k * Operand::kBytes / 4 * kNr);
  }

 private:
  int64_t stride_;
};

// Draws the bits of the rows of one panel, as far as the product wants that. Returns those of its first row,
// or what the product has.
QLORA_INLINE Kept drawn(const ThinProduct& g, int64_t column, int64_t cols, float* room) {
  Kept kept = g.kept;
  if (g.draw.keys == nullptr) return kept;
  if (kept.bits == nullptr)
    kept = {reinterpret_cast<uint8_t*>(room), kept_bytes(g.draw_cols), kept.factor};
  else
    kept.bits += column * kept.ld;
  draw_rows(g.draw, column, column + cols, g.draw_cols, kept.bits, kept.ld);
  return kept;
}

// Columns of n of some panels; of one alone where bits are drawn.
template <class Operand>
static void thin_columns(const ThinProduct& g, int64_t begin, int64_t count) {
  const int64_t tiles = thin_tiles<Operand>(g), tile_rows = thin_tile_rows<Operand>(g);
  const int64_t sum_floats = tiles * Operand::kTileRows * kNr;
  const auto cols_of = [&](int64_t p) { return smaller(kNr, g.n - p * kNr); };
  for (int64_t t = 0; t < tiles && thin_panels(g) == 1; ++t) pack_thin<Operand>(g, t);
  const bool own_bits = g.draw.keys != nullptr && g.kept.bits == nullptr;
  float* sums = cpu::scratch(cpu::Scratch::thin_sums,
                             count * sum_floats + (own_bits ? kNr * kept_bytes(g.draw_cols) / 4 : 0));
  const Kept kept = drawn(g, begin * kNr, cols_of(begin), sums + count * sum_floats);
  const WidePanels<Operand> wide(g, begin, count);
  if (thin_by_rows(Operand{}, g)) return thin_rows(Operand{}, g, kept, begin, wide.packed);
  for (int64_t p = begin; p < begin + count && g.add; ++p) prefetch_sums(g, p * kNr, cols_of(p));
  for (int64_t p = begin; p < begin + count && g.add && g.y_by_n; ++p)
    load_by_n(g, sums + (p - begin) * sum_floats, p * kNr, cols_of(p));
  bool add = g.add;
  for (ThinChunks<Operand> c(g); c.next(); add = true) {
    wide.pack(g, kept, c.k0, c.kc);
    const typename Operand::Session session;
    for (int64_t p = begin; p < begin + count; ++p)
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t row = t * tile_rows;
        Destination to{g.y + row * g.n + p * kNr, g.n, g.alpha, add};
        if (g.y_by_n) to = {sums + (p - begin) * sum_floats + row * kNr, kNr, g.alpha, add};
        multiply_tile(Operand{}, smaller(tile_rows, g.m - row), c.kc, thin_tile(g, t, c), wide.at(p), to,
                      g.y_by_n ? kNr : cols_of(p));
      }
  }
  for (int64_t p = begin; p < begin + count && g.y_by_n && add; ++p)
    store_by_n(g, sums + (p - begin) * sum_floats, p * kNr, cols_of(p));
}

// The tasks of a product: panels, several together where wide is read by rows of k.
QLORA_INLINE int64_t thin_tasks(const ThinProduct& g) {
  return (thin_panels(g) + g.together - 1) / g.together;
}
template <class Operand>
QLORA_INLINE void thin_task(const ThinProduct& g, int64_t i) {
  const int64_t begin = i * g.together;
  thin_columns<Operand>(g, begin, smaller(g.together, thin_panels(g) - begin));
}

// body(product, i) for items [begin, end) of all products, of which product g has count(g).
template <class Count, class Body>
QLORA_INLINE void each_of(ThinProduct* products, int64_t n, int64_t begin, int64_t end, const Count& count,
                          const Body& body) {
  int64_t before = 0;
  for (int64_t i = 0; i < n && before < end; ++i) {
    const int64_t here = count(products[i]);
    for (int64_t item = larger(begin, before); item < smaller(end, before + here); ++item)
      body(products[i], item - before);
    before += here;
  }
}

template <class Operand>
static void thin_products(ThinProduct* products, int64_t n) {
  int64_t floats = 0, tiles = 0, panels = 0, work = 0;
  for (int64_t i = 0; i < n; ++i) {
    ThinProduct& g = products[i];
    ThinChunks<Operand> c(g);
    while (c.next()) {
    }
    g.tile_floats = c.floats;
    floats += thin_tiles<Operand>(g) * g.tile_floats;
    tiles += thin_tiles_apart<Operand>(g);
    panels += thin_panels(g);
    // A number for dropout costs about as much as 24 multiply-adds.
    work += g.m * g.n * g.k + (g.draw.keys != nullptr ? g.n * g.draw_cols * 24 : 0);
  }
  if (panels == 0) return;
  int64_t tasks = 0;
  for (int64_t i = 0; i < n; ++i) {
    ThinProduct& g = products[i];
    if (g.wide_by_k && g.draw.keys == nullptr)
      g.together = smaller(kPanelsTogether, larger(1, panels / (4 * cpu::task_threads())));
    tasks += thin_tasks(g);
  }
  float* data = cpu::scratch(cpu::Scratch::thin, floats);
  for (int64_t i = 0; i < n; ++i) {
    products[i].packed = data;
    data += thin_tiles<Operand>(products[i]) * products[i].tile_floats;
  }
  // Packing is a small part of the work: one thread where the whole is not worth two.
  const int64_t in_place = work < int64_t{1} << 20 ? tiles + tasks : 1;
  parallel(tiles, larger(in_place, (tiles + 7) / 8), [&](int64_t begin, int64_t end) {
    each_of(products, n, begin, end, thin_tiles_apart<Operand>, pack_thin<Operand>);
  });
  parallel(tasks, larger(in_place, tasks / (16 * cpu::task_threads())), [&](int64_t begin, int64_t end) {
    each_of(products, n, begin, end, thin_tasks, thin_task<Operand>);
  });
}
