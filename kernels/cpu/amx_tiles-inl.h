// Products by the tiles of AMX. A tile of x is 32 rows, one of w the 32 columns of a panel: four tiles of
// sums, two of x and two of w, for every 32 values of k.

#if QLORA_TILES

// x: for every step of 32 values of k, 32 rows of 64 bytes. w: as Bf16Pairs has it, rows of zeros up to a
// whole step.
struct AmxTiles {
  using Session = TilesOn;  // tiles flush denormals by themselves
  static constexpr bool kFlush = true, kFewRows = true;
  static constexpr int64_t kChunkStep = kAmxDepth, kTileRows = 32, kPanelTasks = 3;
  static constexpr int64_t kChunkMax = kAmxChunkMax;
  static constexpr int64_t kBytes = 2, kRowsBytes = 384 << 10;
  QLORA_INLINE int64_t steps(int64_t kc) { return (kc + kAmxDepth - 1) / kAmxDepth; }
  QLORA_INLINE int64_t tile_floats(int64_t kc) { return steps(kc) * kTileRows * kLanes; }
};
static_assert(kLanes == 16 && AmxTiles::kTileRows == kNr);

// Rows of zeros from pair (kc + 1) / 2 up to the end of the step.
QLORA_INLINE void complete_step(float* panel, int64_t kc) {
  for (int64_t j = (kc + 1) / 2; j < AmxTiles::steps(kc) * kLanes; ++j) {
    store(panel + j * kNr, zero());
    store(panel + j * kNr + kLanes, zero());
  }
}

// Rows as they lie.
template <class T>
QLORA_INLINE void pack_tiles_of_rows(const T* p, int64_t ld, int64_t rows, int64_t kc, float* out) {
  for (int64_t k = 0; k < kc; k += kAmxDepth, out += AmxTiles::kTileRows * kLanes) {
    for (int64_t i = 0; i < rows; ++i) istore(out + i * kLanes, load_pairs(p + i * ld + k, kc - k));
    for (int64_t i = rows; i < AmxTiles::kTileRows; ++i) store(out + i * kLanes, zero());
  }
}
QLORA_INLINE void pack_x_as(AmxTiles, const uint16_t* p, int64_t ld, int64_t rows, int64_t kc, float* out) {
  pack_tiles_of_rows(p, ld, rows, kc, out);
}
QLORA_INLINE void pack_x_as(AmxTiles, const float* p, int64_t ld, bool transposed, int64_t rows, int64_t kc,
                            float* out) {
  if (!transposed) return pack_tiles_of_rows(p, ld, rows, kc, out);
  for (int64_t k = 0; k < kc; k += kAmxDepth, out += AmxTiles::kTileRows * kLanes) {
    for (int64_t i = 0; i < rows; i += kLanes) {
      const int64_t lanes = smaller(kLanes, rows - i);
      IVec r[kLanes];
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) {
        const float* at = p + (k + 2 * j) * ld + i;
        const int64_t left = kc - k - 2 * j;
        r[j] = pair(left > 0 ? load_some(at, lanes) : zero(), left > 1 ? load_some(at + ld, lanes) : zero());
      }
      transpose16(r);
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) istore(out + (i + j) * kLanes, r[j]);
    }
    for (int64_t i = (rows + kLanes - 1) / kLanes * kLanes; i < AmxTiles::kTileRows; ++i)
      store(out + i * kLanes, zero());
  }
}

template <class T>
QLORA_INLINE void pack_w_as(AmxTiles, const T* p, int64_t ld, bool rows_are_k, int64_t cols, int64_t kc,
                            float* out) {
  pack_w_as(Bf16Pairs{}, p, ld, rows_are_k, cols, kc, out);
  complete_step(out, kc);
}
QLORA_INLINE void pack_codes_as(AmxTiles, const Codes& w, bool rows_are_k, int64_t k, int64_t kc,
                                int64_t column, int64_t cols, float* out) {
  pack_codes_as(Bf16Pairs{}, w, rows_are_k, k, kc, column, cols, out);
  complete_step(out, kc);
}

// Rows of the second sixteen, and their columns, may be missing.
template <bool kRows, bool kColumns>
QLORA_INLINE void zero_sums() {
  tile_zero<0>();
  if constexpr (kColumns) tile_zero<1>();
  if constexpr (kRows) tile_zero<2>();
  if constexpr (kRows && kColumns) tile_zero<3>();
}
// beside(): called once a step.
template <bool kRows, bool kColumns, class Beside>
QLORA_INLINE void dot_steps(int64_t steps, const float* a, const float* b, Beside&& beside) {
  for (int64_t i = 0; i < steps; ++i, a += AmxTiles::kTileRows * kLanes, b += kLanes * kNr) {
    tile_load_passing<4>(a, 64);
    tile_load<6>(b, kNr * 4);
    tile_dot<0, 4, 6>();
    if constexpr (kColumns) {
      tile_load<7>(b + kLanes, kNr * 4);
      tile_dot<1, 4, 7>();
    }
    if constexpr (kRows) {
      tile_load_passing<5>(a + kLanes * kLanes, 64);
      tile_dot<2, 5, 6>();
      if constexpr (kColumns) tile_dot<3, 5, 7>();
    }
    beside();
  }
}

template <bool kRows, bool kColumns>
QLORA_INLINE void store_sums(float* y, int64_t ld) {
  tile_store<0>(y, ld * 4);
  if constexpr (kColumns) tile_store<1>(y + kLanes, ld * 4);
  if constexpr (kRows) tile_store<2>(y + kLanes * ld, ld * 4);
  if constexpr (kRows && kColumns) tile_store<3>(y + kLanes * ld + kLanes, ld * 4);
}

template <bool kRows, bool kColumns, class Beside>
static void amx_tile(int64_t rows, int64_t kc, const float* a, const float* b, Destination d, int64_t cols,
                     Beside& beside) {
  const int64_t steps = AmxTiles::steps(kc), rows_a_step = (rows + steps - 1) / steps;
  int64_t ahead = d.add ? rows : 0;  // what is written for the first time may be far away
  zero_sums<kRows, kColumns>();
  dot_steps<kRows, kColumns>(steps, a, b, [&] {
    for (const int64_t end = smaller(rows, ahead + rows_a_step); ahead < end; ++ahead) {
      const float* y = d.y + ahead * d.ld;
      __builtin_prefetch(y, 1);
      if constexpr (kColumns) __builtin_prefetch(y + kLanes, 1);
      __builtin_prefetch(y + (kColumns ? kNr : kLanes) - 1, 1);  // rows need not begin with a line
    }
    beside();
  });
  const bool whole = rows == (kRows ? 32 : 16) && cols == (kColumns ? 32 : 16);
  if (whole && !d.add && d.alpha == 1.0f) return store_sums<kRows, kColumns>(d.y, d.ld);
  alignas(64) float sums[AmxTiles::kTileRows * kNr];
  store_sums<kRows, kColumns>(sums, kNr);
  const FlushDenormals<true> flush;
  add_sums(sums, rows, d, cols);
}

// beside(): as in dot_steps().
template <class Beside>
QLORA_INLINE void multiply_tile_beside(int64_t rows, int64_t kc, const float* a, const float* b,
                                       Destination d, int64_t cols, Beside&& beside) {
  if (rows > kLanes)
    cols > kLanes ? amx_tile<true, true>(rows, kc, a, b, d, cols, beside)
                  : amx_tile<true, false>(rows, kc, a, b, d, cols, beside);
  else
    cols > kLanes ? amx_tile<false, true>(rows, kc, a, b, d, cols, beside)
                  : amx_tile<false, false>(rows, kc, a, b, d, cols, beside);
}
QLORA_INLINE void multiply_tile(AmxTiles, int64_t rows, int64_t kc, const float* a, const float* b,
                                Destination d, int64_t cols) {
  multiply_tile_beside(rows, kc, a, b, d, cols, [] {});
}

using AmxBest = AmxTiles;
#else
using AmxBest = AmxSums;
#endif
