// Products of few rows of x with 4-bit codes, or with stored bf16 or f32, by the tiles of AMX. What costs
// time there is decoding and packing, and w lies in rows of k, as a tile of x wants its operand: so w takes
// the place of x, and x that of w. Every sum has the same terms in the same order as in amx_tiles-inl.h, and
// comes out transposed.

#if QLORA_TILES

constexpr int64_t kAmxFewRows = 32;

template <>
bool small_rows_take<AmxTiles>(const GemmArgs& g) {
  if (g.m > kAmxFewRows || g.layout != Layout::nt) return false;
  if (g.codes == nullptr) return g.k % kAmxDepth == 0;
  return g.codes->bits == 4 && g.codes->cols % g.codes->block == 0 && g.codes->block % kAmxDepth == 0;
}

// x as the second operand, and sums: as wide as x has rows, beyond sixteen as wide as a panel.
QLORA_INLINE int64_t few_width(int64_t m) {
  return m > kLanes ? kNr : m;
}

// What is decoded at a time, while the tiles multiply what was decoded before: values [k, k + kc) of rows
// [row, row + rows) of w. Pieces of a group of rows come one after the other, then those of the next group.
constexpr int64_t kAmxPiece = 4 * kAmxDepth, kAmxStep = AmxTiles::kTileRows * kLanes;
struct FewPiece {
  int64_t end, depth;  // rows of w, and values of k, in all
  int64_t row, rows = 0, k = 0, kc = 0;
  FewPiece(int64_t begin, int64_t rows_end, int64_t values) : end(rows_end), depth(values), row(begin) {
    start();
  }
  // False when there is no other.
  bool next() {
    k += kc;
    if (k == depth) {
      k = 0;
      row += rows;
    }
    start();
    return rows > 0;
  }

 private:
  void start() {
    rows = smaller(AmxTiles::kTileRows, end - row);
    kc = smaller(kAmxPiece, depth - k);
  }
};

QLORA_INLINE void ask_for(const void* p, int64_t bytes) {
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(static_cast<const char*>(p) + b, 0, 2);
}

// Values [k, k + kc) of one row of w: a step of 32 to every kAmxStep-th place of `to`.
QLORA_INLINE void decode_row(const WordPlaces& places, Vec levels, int64_t block, const float* scales,
                             const uint8_t* codes, int64_t k, int64_t kc, float* to) {
  for (const int64_t end = k + kc; k < end;) {
    const Vec scaled = levels * set1(scales[k / block]);
    const WordTable table = word_table(scaled, scaled);
    for (const int64_t stop = smaller(end, (k / block + 1) * block); k < stop;
         k += kAmxDepth, codes += kAmxDepth / 2, to += kAmxStep)
      lookup_words<1>(places, table, codes, to, kAmxStep);
  }
}

// The codes of w, a group of rows at a time: memory is asked for those of the next group while one is
// decoded, in the order in which they lie. No prefetcher of the machine follows so many short rows. A line
// with every row: many at once hold up what comes after them.
class FewCodes {
 public:
  FewCodes(const Codes& w, const FewPiece& first)
      : all_(w), blocks_(w.cols / w.block), bytes_(w.cols / 2), levels_(load(w.levels)), piece_(first) {
    ask_for(w.data + first.row * bytes_, first.rows * bytes_);
    ask_for_scales(first.row, first.rows);
    begin(first);
  }
  // Decodes this piece from now on.
  void begin(const FewPiece& p) {
    piece_ = p;
    const int64_t next = p.row + p.rows;
    if (p.k == 0) {
      group_ = with_scales(all_, p.row, next);
      ask_for_scales(next, smaller(AmxTiles::kTileRows, p.end - next));
    }
    codes_ = all_.data + p.row * bytes_ + p.k / 2;
    ahead_ = next < p.end ? all_.data + next * bytes_ + p.k / 2 * AmxTiles::kTileRows : nullptr;
    scales_ = group_.absmax + p.row * blocks_ - group_.first_block;
    halves_ = all_.block % (kAmxPiece / 2) == 0 && p.kc == kAmxPiece;
    for (int i = 0; i < 2; ++i) halves_at_[i] = (p.k + i * kAmxPiece / 2) / all_.block;
  }
  // Rows [from, to) of the piece, as those of a tile of x.
  void decode(int64_t from, int64_t to, float* out) const {
    const WordPlaces places = places_;
    const Vec levels = levels_;
    const int64_t last = smaller(to, piece_.rows), bytes = bytes_, blocks = blocks_;
    const uint8_t* codes = codes_ + from * bytes;
    const int64_t asked = ahead_ != nullptr ? piece_.kc / 2 : 0;
    const uint8_t* ahead = asked > 0 ? ahead_ + from * asked : codes;
    const float* scales = scales_ + from * blocks;
    const int64_t first = halves_at_[0], second = halves_at_[1];
    float* row = out + from * kLanes;
    int64_t i = from;
    const auto next_row = [&] {
      ++i, codes += bytes, ahead += asked, scales += blocks, row += kLanes;
      __builtin_prefetch(ahead, 0, 2);
    };
    if (halves_)
      for (; i < last; next_row()) {
        const Vec a = levels * set1(scales[first]), b = levels * set1(scales[second]);
        lookup_words<4>(places, word_table(a, b), codes, row, kAmxStep);
      }
    for (; i < last; next_row())
      decode_row(places, levels, all_.block, scales, codes, piece_.k, piece_.kc, row);
    for (const int64_t steps = AmxTiles::steps(piece_.kc); i < to; ++i, row += kLanes)
      for (int64_t at = 0; at < steps; ++at) store(row + at * kAmxStep, zero());
  }

 private:
  void ask_for_scales(int64_t row, int64_t rows) const {
    if (all_.absmax != nullptr)
      ask_for(all_.absmax + row * blocks_, rows * blocks_ * 4);
    else
      ask_for(all_.nested->absmax_codes + row * blocks_, rows * blocks_);
  }

  const Codes& all_;
  const int64_t blocks_, bytes_;  // of a row
  const Vec levels_;
  const WordPlaces places_{};
  FewPiece piece_;
  Codes group_;
  const uint8_t *codes_ = nullptr, *ahead_ = nullptr;  // of the piece; what to ask for beside it
  const float* scales_ = nullptr;
  bool halves_ = false;  // the piece is two halves, each with one scale of a row's
  int64_t halves_at_[2] = {};
};

// y[m, cols] = (add ? y : 0) + alpha * sums transposed, which are [cols, m].
QLORA_INLINE void add_transposed(const float* sums, int64_t m, int64_t cols, Destination d) {
  const FlushDenormals<true> flush;
  const Vec alpha = set1(d.alpha);
  const int64_t width = few_width(m);
  const auto add_row = [&](Vec s, float* y, int64_t lanes) __attribute__((always_inline)) {
    store_some(y, d.add ? fma(alpha, s, load_some(y, lanes)) : alpha * s, lanes);
  };
  for (int64_t c = 0; c < cols; c += kLanes) {
    const int64_t lanes = smaller(kLanes, cols - c);
    if (m == 1) add_row(load(sums + c), d.y + c, lanes);
    for (int64_t r = 0; r < m && m > 1; r += kLanes) {
      IVec t[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) t[i] = as_int(load(sums + (c + i) * width + r));
      transpose16(t);
      for (int64_t i = 0; i < smaller(kLanes, m - r); ++i)
        add_row(as_float(t[i]), d.y + (r + i) * d.ld + c, lanes);
    }
  }
}

// A step of k: 32 rows of w, `stride` bytes apart, times x.
template <bool kManyRows>
QLORA_INLINE void few_step(const void* w, int64_t stride, const float* x, int64_t width) {
  tile_load_passing<4>(w, stride);
  tile_load<6>(x, width * 4);
  tile_dot<0, 4, 6>();
  tile_load_passing<5>(static_cast<const char*>(w) + kLanes * stride, stride);
  tile_dot<2, 5, 6>();
  if constexpr (kManyRows) {
    tile_load<7>(x + kLanes, width * 4);
    tile_dot<1, 4, 7>();
    tile_dot<3, 5, 7>();
  }
}

// Columns [begin, end) of y; `packed`: x. Every step of the tiles is followed by some rows of the next piece.
template <bool kManyRows>
static void amx_few_codes(const GemmArgs& g, const float* packed, int64_t begin, int64_t end) {
  constexpr int64_t kRows = AmxTiles::kTileRows;
  const int64_t chunk = chunk_of<AmxTiles>(g.k), width = few_width(g.m);
  int64_t chunk_begin = 0, chunk_end = smaller(g.k, chunk);
  alignas(64) float pieces[2][kAmxPiece / 2 * kRows], sums[kRows * kNr + kLanes];
  FewPiece next(begin, end, g.k);
  FewCodes codes(*g.codes, next);
  const AmxTiles::Session session(smaller(kLanes, g.m));
  codes.decode(0, kRows, pieces[0]);
  bool more = true;
  for (int now = 0; more; now ^= 1) {
    const FewPiece piece = next;
    more = next.next();
    if (more) codes.begin(next);
    const int64_t steps = AmxTiles::steps(piece.kc), rows = (kRows + steps - 1) / steps;
    int64_t decoded = more ? 0 : kRows;
    for (int64_t i = 0; i < steps; ++i) {
      const int64_t k = piece.k + i * kAmxDepth;
      if (k == chunk_begin) zero_sums<true, kManyRows>();
      few_step<kManyRows>(pieces[now] + i * kAmxStep, 64, packed + k / 2 * width, width);
      const int64_t until = smaller(decoded + rows, kRows);
      codes.decode(decoded, until, pieces[now ^ 1]);
      decoded = until;
      if (k + kAmxDepth != chunk_end) continue;
      store_sums<true, kManyRows>(sums, width);
      add_transposed(sums, g.m, piece.rows, {g.y + piece.row, g.ldy, g.alpha, g.add || chunk_begin > 0});
      chunk_begin = chunk_end == g.k ? 0 : chunk_end;
      chunk_end = smaller(g.k, chunk_begin + chunk);
    }
  }
}

// The same from stored bf16, where they lie: tiles are loaded with the stride of w. The last columns are
// those of a whole tile, of which the first ones are known already.
template <bool kManyRows>
static void amx_few_dense(const GemmArgs& g, const float* packed, int64_t begin, int64_t end) {
  constexpr int64_t kRows = AmxTiles::kTileRows;
  const int64_t chunk = chunk_of<AmxTiles>(g.k), width = few_width(g.m);
  alignas(64) float sums[(kRows + kLanes) * kNr];
  const AmxTiles::Session session(smaller(kLanes, g.m));
  for (int64_t column = begin; column < end; column += kRows) {
    const int64_t known = column - smaller(column, g.n - kRows);
    const uint16_t* w = g.dense_bf16 + (column - known) * g.ldw;
    for (int64_t k0 = 0; k0 < g.k; k0 += chunk) {
      zero_sums<true, kManyRows>();
      for (int64_t k = k0; k < smaller(g.k, k0 + chunk); k += kAmxDepth)
        few_step<kManyRows>(w + k, g.ldw * 2, packed + k / 2 * width, width);
      store_sums<true, kManyRows>(sums, width);
      add_transposed(sums + known * width, g.m, smaller(kRows, end - column),
                     {g.y + column, g.ldy, g.alpha, g.add || k0 > 0});
    }
  }
}

// Pieces of rows of dense w, of which rows may be missing, as decode_row() writes them.
template <class T>
QLORA_INLINE void pack_rows(const T* w, int64_t ld, int64_t rows, int64_t kc, float* to) {
  for (int64_t k = 0; k < kc; k += kAmxDepth, to += kAmxStep) {
    for (int64_t i = 0; i < rows; ++i) istore(to + i * kLanes, load_pairs(w + i * ld + k, kAmxDepth));
    for (int64_t i = rows; i < AmxTiles::kTileRows; ++i) store(to + i * kLanes, zero());
  }
}

// The same from f32, which is narrowed a piece of rows at a time; and from bf16 of less than a tile.
template <bool kManyRows, class T>
static void amx_few_packed(const GemmArgs& g, const T* dense, const float* packed, int64_t begin,
                           int64_t end) {
  constexpr int64_t kRows = AmxTiles::kTileRows;
  const int64_t chunk = chunk_of<AmxTiles>(g.k), width = few_width(g.m);
  alignas(64) float narrow[kAmxPiece / 2 * kRows], sums[kRows * kNr + kLanes];
  const AmxTiles::Session session(smaller(kLanes, g.m));
  for (int64_t column = begin; column < end; column += kRows) {
    const int64_t rows = smaller(kRows, end - column);
    for (int64_t k0 = 0; k0 < g.k; k0 += chunk) {
      zero_sums<true, kManyRows>();
      for (int64_t k = k0, kc = 0; k < smaller(g.k, k0 + chunk); k += kc) {
        kc = smaller(kAmxPiece, smaller(g.k, k0 + chunk) - k);
        pack_rows(dense + column * g.ldw + k, g.ldw, rows, kc, narrow);
        for (int64_t i = 0; i < kc; i += kAmxDepth)
          few_step<kManyRows>(narrow + i / kAmxDepth * kAmxStep, 64, packed + (k + i) / 2 * width, width);
      }
      store_sums<true, kManyRows>(sums, width);
      add_transposed(sums, g.m, rows, {g.y + column, g.ldy, g.alpha, g.add || k0 > 0});
    }
  }
}

template <bool kManyRows>
static void amx_few(const GemmArgs& g, const float* packed, int64_t begin, int64_t end) {
  if (g.codes != nullptr) return amx_few_codes<kManyRows>(g, packed, begin, end);
  if (g.dense_bf16 == nullptr) return amx_few_packed<kManyRows>(g, g.dense, packed, begin, end);
  g.n >= AmxTiles::kTileRows ? amx_few_dense<kManyRows>(g, packed, begin, end)
                             : amx_few_packed<kManyRows>(g, g.dense_bf16, packed, begin, end);
}

template <>
void small_rows<AmxTiles>(const GemmArgs& g) {
  const int64_t step = AmxTiles::kTileRows, width = few_width(g.m);
  float* x = cpu::scratch(cpu::Scratch::packed_x, g.k / 2 * width + kLanes);
  with_x(g, [&](const auto* rows) {
    for (int64_t r = 0; r < width && !g.same_x; r += kLanes)
      transpose_pairs_of<0>(
          smaller(kLanes, g.m - r), g.k, x + r, width,
          [&](int64_t i, int64_t k, int64_t n) { return load_pairs(rows + (r + i) * g.ldx + k, n); });
  });
  // Few tasks: nothing is decoded ahead, or asked for long before, of a task's first rows.
  const int64_t groups = (g.n + step - 1) / step, share = groups / (4 * cpu::task_threads());
  parallel(groups, larger(weights_per_task(step * g.k), share), [&](int64_t begin, int64_t end) {
    const auto few = g.m > kLanes ? amx_few<true> : amx_few<false>;
    few(g, x, begin * step, smaller(g.n, end * step));
  });
}

#endif
