// Matrix products, dense and from codes, after Goto & van de Geijn (2008) and BLIS: x is packed once,
// by all threads, or by every task for itself (Cut::own_x); then every task packs or decodes a panel of w
// that stays in cache (kChunkMax) and runs all its row tiles over it. A quantized weight is never expanded
// beyond one panel.
//
// Order of sums: y = sum over chunks of k, in order, of (sum over the chunk's k, in order, one fma each). The
// chunks depend on k alone, tails of rows and columns run the same code, and tasks split outputs: so no bit
// of y depends on m, on threads, or on whether w came from codes or from its dense equal. `Operand` is one of
// the structs of operands-inl.h, which also order the chunk's k.

constexpr int64_t kSuperMax = 4096;  // of k: how much of x is packed at a time
constexpr int64_t kPanelsMax = 8;    // per task
// The same where tasks pack x for themselves, which has to be little beside its products.
constexpr int64_t kOwnPanelsMin = 8, kOwnPanelsMax = 32;
constexpr int64_t kPairTasks = 12;  // at least so many tasks a thread of panels that are packed in pairs

// Values of k per chunk: equal parts, in whole words of codes at least.
template <class Operand>
QLORA_INLINE int64_t chunk_of(int64_t k) {
  constexpr int64_t kStep = Operand::kChunkStep;
  const int64_t chunks = (k + Operand::kChunkMax - 1) / Operand::kChunkMax;
  return ((k + chunks - 1) / chunks + kStep - 1) / kStep * kStep;
}

// Memory that the next panel is packed from, asked for a line at a time.
struct NextPanel {
  const char* p = nullptr;
  int64_t row_bytes = 0, stride = 0, rows = 0;
  int64_t at = 0;  // in the row
  inline __attribute__((always_inline)) void ask() {
    if (rows == 0) return;
    __builtin_prefetch(p + at, 0, 2);
    at += 64;
    if (at < row_bytes) return;
    at = 0;
    p += stride;
    --rows;
  }
};

struct Destination {
  float* y;
  int64_t ld;
  float alpha;
  bool add;
  NextPanel* next = nullptr;  // what to ask for meanwhile
};

// y[R, cols] = (add ? y : 0) + alpha * sum over k of a[k][row] b[k][column].
template <class Operand, int R>
static void tile(int64_t kc, const float* a, const float* b, Destination d, int64_t cols) {
  Vec s[R][2];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) s[r][0] = s[r][1] = zero();
  // Or the compiler keeps R addresses over the loop, some of them in registers that accumulators need.
  asm("" : "+r"(d.y), "+r"(d.ld));
  // Lines from memory are asked for a few at a time, or what the sum loads waits behind them; those of y
  // late, or what the sum loads drives them out again.
  constexpr int64_t kSteps = 8 / Operand::kRows, kSpare = 8;
  int64_t left = Operand::steps(kc), y_row = R + kSpare - left / kSteps;
  const float* y_line = d.y;
  const auto ask_for_y = [&]() __attribute__((always_inline)) {
    __builtin_prefetch(y_line, 1);
    __builtin_prefetch(y_line + kNr / 2, 1);
    __builtin_prefetch(y_line + kNr - 1, 1);
    y_line += d.ld;
  };
  for (int64_t r = smaller(R, y_row); r > 0; --r) ask_for_y();
  for (; left > 0; left -= kSteps, ++y_row) {
    if (y_row >= 0 && y_row < R) ask_for_y();
    if (d.next != nullptr) d.next->ask();
    for (int64_t i = smaller(left, kSteps); i > 0;
         --i, a += Operand::kRows * kMr, b += Operand::kRows * kNr) {
#pragma GCC unroll 2
      for (int row = Operand::kRows - 1; row >= 0; --row) {
        const Vec b0 = load(b + row * kNr), b1 = load(b + row * kNr + kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const Vec x = set1(a[row * kMr + r]);
          s[r][0] = Operand::step(x, b0, s[r][0]);
          s[r][1] = Operand::step(x, b1, s[r][1]);
        }
      }
    }
  }
  const Vec alpha = set1(d.alpha);
  if (cols == kNr) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      float* y = d.y + r * d.ld;
      store(y, d.add ? fma(alpha, s[r][0], load(y)) : alpha * s[r][0]);
      store(y + kLanes, d.add ? fma(alpha, s[r][1], load(y + kLanes)) : alpha * s[r][1]);
    }
    return;
  }
  const int64_t c0 = smaller(cols, kLanes), c1 = cols - c0;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    float* y = d.y + r * d.ld;
    store_n(y, d.add ? fma(alpha, s[r][0], load_n(y, c0)) : alpha * s[r][0], c0);
    if (c1 > 0)
      store_n(y + kLanes, d.add ? fma(alpha, s[r][1], load_n(y + kLanes, c1)) : alpha * s[r][1], c1);
  }
}

// y[rows, cols] = (add ? y : 0) + alpha * sums, which are kNr wide.
QLORA_INLINE void add_sums(const float* sums, int64_t rows, Destination d, int64_t cols) {
  const Vec alpha = set1(d.alpha);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; c += kLanes) {
      const int64_t lanes = smaller(kLanes, cols - c);
      float* y = d.y + r * d.ld + c;
      const Vec s = load(sums + r * kNr + c);
      store_some(y, d.add ? fma(alpha, s, load_some(y, lanes)) : alpha * s, lanes);
    }
}

template <class Operand, int R>
static void short_tile(int64_t rows, int64_t kc, const float* a, const float* b, Destination d,
                       int64_t cols) {
  if constexpr (R > 1) {
    if (rows < R) return short_tile<Operand, R - 1>(rows, kc, a, b, d, cols);
  }
  tile<Operand, R>(kc, a, b, d, cols);
}

// A tile of any number of rows up to Operand::kTileRows; amx_*-inl.h have others.
template <class Operand>
QLORA_INLINE void multiply_tile(Operand, int64_t rows, int64_t kc, const float* a, const float* b,
                                Destination d, int64_t cols) {
  short_tile<Operand, kMr>(rows, kc, a, b, d, cols);
}

// x of one product, packed: for every chunk of k, the tiles of all rows, or of a block of them. data: null
// where every task packs what it takes.
template <class Operand>
struct PackedX {
  float* data;
  int64_t tiles, chunk, first = 0;
  // The tile of the chunk with this number, which is kc long.
  float* at(int64_t t, int64_t number, int64_t kc) const {
    return data + tiles * number * Operand::tile_floats(chunk) + (t - first) * Operand::tile_floats(kc);
  }
  static int64_t floats(int64_t tiles, int64_t k, int64_t chunk) {
    const int64_t rest = k % chunk;
    return tiles * (k / chunk * Operand::tile_floats(chunk) + (rest > 0 ? Operand::tile_floats(rest) : 0));
  }
};

// Tile t of values [k, k + kc) of the sum.
template <class Operand>
QLORA_INLINE void pack_x(const GemmArgs& g, int64_t t, int64_t k, int64_t kc, float* tile) {
  const bool transposed = g.layout == Layout::tn;
  const int64_t row = t * Operand::kTileRows, rows = smaller(Operand::kTileRows, g.m - row);
  if constexpr (Operand::kFlush) {
    if (g.x_bf16 != nullptr) return pack_x_as(Operand{}, g.x_bf16 + row * g.ldx + k, g.ldx, rows, kc, tile);
  }
  const float* p = transposed ? g.x + k * g.ldx + row : g.x + row * g.ldx + k;
  pack_x_as(Operand{}, p, g.ldx, transposed, rows, kc, tile);
}

// body(x) with x as it is stored.
template <class Body>
QLORA_INLINE void with_x(const GemmArgs& g, const Body& body) {
  g.x_bf16 != nullptr ? body(g.x_bf16) : body(g.x);
}

template <class Operand>
QLORA_INLINE void pack_w(const GemmArgs& g, int64_t k, int64_t kc, int64_t column, int64_t cols, float* out) {
  const bool rows_are_k = g.layout != Layout::nt;
  if (g.codes != nullptr) return pack_codes_as(Operand{}, *g.codes, rows_are_k, k, kc, column, cols, out);
  const int64_t at = rows_are_k ? k * g.ldw + column : column * g.ldw + k;
  if (g.dense_bf16 != nullptr)
    pack_w_as(Operand{}, g.dense_bf16 + at, g.ldw, rows_are_k, cols, kc, out);
  else
    pack_w_as(Operand{}, g.dense + at, g.ldw, rows_are_k, cols, kc, out);
}

// How many panels of w are packed together: two, where short pieces of rows lie beside each other and pages
// from the next rows. (Of codes, which are a quarter as long, two gain nothing.)
template <class Operand>
QLORA_INLINE int64_t panels_beside(Operand, const GemmArgs&, int64_t) {
  return 1;
}
template <class Operand>
QLORA_INLINE void pack_w_beside(Operand, const GemmArgs&, int64_t, int64_t, int64_t, float*) {}
#if QLORA_PAIRS
QLORA_INLINE int64_t panels_beside(Bf16Pairs, const GemmArgs& g, int64_t kc) {
  return g.layout != Layout::nt && g.dense_bf16 != nullptr && g.codes == nullptr && kc % 2 == 0 ? 2 : 1;
}
QLORA_INLINE void pack_w_beside(Bf16Pairs, const GemmArgs& g, int64_t k, int64_t kc, int64_t column,
                                float* out) {
  pack_two_panels(g.dense_bf16 + k * g.ldw + column, g.ldw, kc, out, kc / 2 * kNr);
}
#endif

// What pack_w will read of a dense w.
QLORA_INLINE NextPanel next_panel(const GemmArgs& g, int64_t k, int64_t kc, int64_t column, int64_t cols) {
  if (g.dense == nullptr || kc <= 0) return {};
  const bool rows_are_k = g.layout != Layout::nt;
  const float* p = g.dense + (rows_are_k ? k * g.ldw + column : column * g.ldw + k);
  return {.p = reinterpret_cast<const char*>(p),
          .row_bytes = 4 * (rows_are_k ? cols : kc),
          .stride = 4 * g.ldw,
          .rows = rows_are_k ? kc : cols};
}

// deltas-inl.h: what adapters add to a tile, right after its last chunk of k while it is in the first-level
// cache.
template <class Operand>
static int64_t delta_panel_floats(const GemmArgs& g);
template <class Operand>
static void pack_deltas(const GemmArgs& g);
QLORA_INLINE void prefetch_delta_panels(const GemmArgs& g, int64_t rows_begin, int64_t rows_end,
                                        int64_t column, int64_t cols);
template <class Operand>
static void pack_delta_panels(const GemmArgs& g, int64_t rows_begin, int64_t rows_end, int64_t column,
                              int64_t cols, float* panels);
template <class Operand>
static void add_deltas(const GemmArgs& g, int64_t t, int64_t column, int64_t cols, const float* panels);

// A rectangle of y: row tiles [t0, t1) times panels [p0, p1), over values [k_begin, k_begin + k) of the sum.
template <class Operand>
static void multiply(const GemmArgs& g, const PackedX<Operand>& packed, int64_t k_begin, int64_t k,
                     int64_t t0, int64_t t1, int64_t p0, int64_t p1) {
  constexpr int64_t kRows = Operand::kTileRows;
  float* const panels = cpu::scratch(cpu::Scratch::packed_w, packed.chunk * kNr);  // two of pairs
  float* delta_panels = nullptr;
  if (g.delta_count > 0)
    delta_panels = cpu::scratch(cpu::Scratch::delta_panels, delta_panel_floats<Operand>(g));
  float* own_x = nullptr;
  if (packed.data == nullptr)
    own_x = cpu::scratch(cpu::Scratch::packed_x, (t1 - t0) * Operand::tile_floats(packed.chunk));
  for (int64_t k0 = 0; k0 < k; k0 += packed.chunk) {
    const int64_t kc = smaller(packed.chunk, k - k0), tile_floats = Operand::tile_floats(kc);
    float* const x = own_x != nullptr ? own_x : packed.at(t0, k0 / packed.chunk, kc);
    for (int64_t t = t0; t < t1 && own_x != nullptr; ++t)
      pack_x<Operand>(g, t, k_begin + k0, kc, x + (t - t0) * tile_floats);
    const bool add = g.add || k_begin + k0 > 0;
    const bool finish = g.delta_count > 0 && k_begin + k0 + kc == g.k;
    const int64_t beside = panels_beside(Operand{}, g, kc);
    bool second = false;  // whether the panel has been packed with the last one
    for (int64_t p = p0; p < p1; ++p) {
      const int64_t column = p * kNr, cols = smaller(kNr, g.n - column);
      if (finish) prefetch_delta_panels(g, t0 * kRows, t1 * kRows, column, cols);
      float* const panel = panels + (second ? kc / 2 * kNr : 0);
      const bool first = !second && beside == 2 && p + 1 < p1 && column + 2 * kNr <= g.n;
      if (first)
        pack_w_beside(Operand{}, g, k_begin + k0, kc, column, panel);
      else if (!second)
        pack_w<Operand>(g, k_begin + k0, kc, column, cols, panel);
      second = first;
      if (finish) pack_delta_panels<Operand>(g, t0 * kRows, t1 * kRows, column, cols, delta_panels);
      const bool last = p + 1 == p1;
      const int64_t next_k = last ? k0 + kc : k0, next_column = (last ? p0 : p + 1) * kNr;
      NextPanel next = next_panel(g, k_begin + next_k, smaller(packed.chunk, k - next_k), next_column,
                                  smaller(kNr, g.n - next_column));
      const typename Operand::Session session;
      for (int64_t t = t0; t < t1; ++t) {
        const Destination d{g.y + t * kRows * g.ldy + column, g.ldy, g.alpha, add, &next};
        multiply_tile(Operand{}, smaller(kRows, g.m - t * kRows), kc, x + (t - t0) * tile_floats, panel, d,
                      cols);
        if (finish) add_deltas<Operand>(g, t, column, cols, delta_panels);
      }
    }
  }
}

// How the outputs of a product are cut into tasks. Has no influence on any bit.
struct Cut {
  int64_t tiles_per_task, panels_per_task, row_tasks, panel_tasks;
  // Every task packs the rows it takes, a chunk of k at a time: they never leave its caches.
  bool own_x;
};

// Items in equal parts of at most `most`.
QLORA_INLINE int64_t equal_parts(int64_t items, int64_t most) {
  const int64_t parts = (items + most - 1) / most;
  return (items + parts - 1) / parts;
}

template <class Operand>
QLORA_INLINE Cut cut(int64_t tiles, int64_t panels, int64_t chunk, bool x_once, int64_t beside = 1) {
  const int64_t threads = cpu::task_threads(), wanted = 6 * threads;
  const int64_t bytes = tiles * Operand::kTileRows * chunk * Operand::kBytes;
  int64_t row_tasks = (bytes + Operand::kRowsBytes - 1) / Operand::kRowsBytes;
  if (own_x(Operand{}) && x_once) {
    // As much for every thread: by rows, or where they are too few, every block of them by columns as well.
    int64_t blocks = row_tasks, sides = 1;
    while (blocks % threads != 0 && threads % blocks != 0) ++blocks;
    if (blocks < threads) sides = threads / blocks;
    const int64_t rows = (tiles + blocks - 1) / blocks;
    const int64_t columns = equal_parts((panels + sides - 1) / sides, kOwnPanelsMax);
    if (sides == 1 || columns >= kOwnPanelsMin)
      return {rows, columns, (tiles + rows - 1) / rows, (panels + columns - 1) / columns, true};
  }
  // Few panels (k and v projections, adapters): cut rows as well, down to eight tiles a task.
  if (panels < wanted)
    row_tasks = larger(row_tasks, smaller((wanted + panels - 1) / panels, (tiles + 7) / 8));
  const int64_t per_task = (tiles + row_tasks - 1) / row_tasks;
  // Few enough panels that their part of y stays in cache from one chunk of k to the next.
  int64_t panels_per_task =
      smaller(kPanelsMax, larger(1, panels * row_tasks / (Operand::kPanelTasks * threads)));
  // Whole pairs of panels, where threads have tasks enough to end together.
  if (panels_per_task % beside != 0 && (threads == 1 || panels * row_tasks >= 2 * kPairTasks * threads))
    ++panels_per_task;
  return {per_task, panels_per_task, (tiles + per_task - 1) / per_task,
          (panels + panels_per_task - 1) / panels_per_task, false};
}

template <class Operand>
static void gemm_range(const GemmArgs& g, int64_t k_begin, int64_t k, int64_t chunk) {
  constexpr int64_t kRows = Operand::kTileRows;
  const int64_t tiles = (g.m + kRows - 1) / kRows, panels = (g.n + kNr - 1) / kNr;
  const int64_t chunks = (k + chunk - 1) / chunk;
  const Cut c = cut<Operand>(tiles, panels, chunk, g.x_once, panels_beside(Operand{}, g, chunk));
  PackedX<Operand> packed{nullptr, tiles, chunk};
  if (!c.own_x) packed.data = cpu::scratch(cpu::Scratch::packed_x, PackedX<Operand>::floats(tiles, k, chunk));
  const int64_t to_pack = c.own_x || (g.same_x && k == g.k) ? 0 : tiles * chunks;
  parallel(to_pack, larger(1, 65536 / (kRows * chunk)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t number = i / tiles, k0 = number * chunk, kc = smaller(chunk, k - k0);
      pack_x<Operand>(g, i % tiles, k_begin + k0, kc, packed.at(i % tiles, number, kc));
    }
  });
  const int64_t tasks = c.row_tasks * c.panel_tasks;
  // Less than about 20 us of work is done in place.
  parallel(tasks, g.m * g.n * k < int64_t{1} << 20 ? tasks : 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t0 = i / c.panel_tasks * c.tiles_per_task, p0 = i % c.panel_tasks * c.panels_per_task;
      multiply<Operand>(g, packed, k_begin, k, t0, smaller(tiles, t0 + c.tiles_per_task), p0,
                        smaller(panels, p0 + c.panels_per_task));
    }
  });
}

// The same in blocks of rows, where amx_blocks-inl.h has them.
template <class Operand>
static void gemm_blocks(const GemmArgs& g, int64_t k_begin, int64_t k, int64_t chunk) {
  gemm_range<Operand>(g, k_begin, k, chunk);
}

// small_rows-inl.h: the same bits without packing, for few rows.
template <class Operand>
static bool small_rows_take(const GemmArgs& g);
template <class Operand>
static void small_rows(const GemmArgs& g);

template <class Operand>
static void gemm_of(const GemmArgs& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if (g.k <= 0) {
    for (int64_t i = 0; i < g.m && !g.add; ++i)
      __builtin_memset(g.y + i * g.ldy, 0, static_cast<size_t>(g.n) * 4);
    return;
  }
  if constexpr (Operand::kFewRows) {
    if (g.delta_count == 0 && small_rows_take<Operand>(g)) return small_rows<Operand>(g);
  }
  if (g.codes != nullptr && g.codes->absmax == nullptr) {
    const Codes codes = with_scales(*g.codes);
    GemmArgs whole = g;
    whole.codes = &codes;
    return gemm_of<Operand>(whole);
  }
  if (g.delta_count > 0) pack_deltas<Operand>(g);
  const int64_t chunk = chunk_of<Operand>(g.k), super = larger(1, kSuperMax / chunk) * chunk;
  for (int64_t k = 0; k < g.k; k += super) gemm_blocks<Operand>(g, k, smaller(super, g.k - k), chunk);
}

static void gemm(const GemmArgs& g) {
  gemm_of<AsStored>(g);
}

// Twelve independent chains of multiply-adds: what the machine can do at most.
static float fma_peak(int64_t rounds) {
  Vec s[12];
  for (int i = 0; i < 12; ++i) s[i] = set1(static_cast<float>(i));
  const Vec a = set1(0.999f), b = set1(1e-3f);
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) s[i] = fma(s[i], a, b);
  for (int i = 1; i < 12; ++i) s[0] = s[0] + s[i];
  return sum(s[0]);
}
