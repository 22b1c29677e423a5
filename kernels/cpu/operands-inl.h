// How a product reads its operands (Operands in kernels/args_matmul.h). Each of these structs says what
// becomes of a packed tile of x or panel of w (both [k][width]), how many rows of it one step of the sum
// takes, and what the step computes.

// kChunkMax: values of k that are summed at a time. f32: a panel of w (kNr columns of them) stays in the
// first-level cache. bf16: longer, because y would be read and written too often beside so much faster a sum;
// two lines of the panel per step come from the second-level cache in time. kBytes: of a packed value.
// kRowsBytes: of packed x per task. f32: it stays in the second-level cache from panel to panel, or all tasks
// wait for what the next cache gives; bf16 comes from there in time, and every panel is decoded for more
// rows. kChunkStep: chunks are whole multiples of it. kTileRows: rows of a tile of x. kPanelTasks: at least
// so many tasks a thread, where there are panels enough. Session: lives while tiles are multiplied. kFewRows:
// whether few rows go without packing (small_rows-inl.h).
constexpr int64_t kBf16ChunkMax = 1024;

// What a packed tile of x takes for kc values of k: columns of kMr rows, and slack (pack-inl.h).
QLORA_INLINE int64_t column_tile_floats(int64_t kc) {
  return kc * kMr + kTileSlack;
}

// f32 as it is.
struct AsStored {
  using Session = FlushDenormals<false>;
  static constexpr bool kFlush = false, kFewRows = true;
  static constexpr int64_t kChunkStep = 8, kTileRows = kMr, kPanelTasks = 24;
  QLORA_INLINE int64_t tile_floats(int64_t kc) { return column_tile_floats(kc); }
  static constexpr int64_t kChunkMax = 320;
  static constexpr int64_t kBytes = 4, kRowsBytes = 768 << 10;
  static constexpr int kRows = 1;
  QLORA_INLINE int64_t steps(int64_t kc) { return kc; }
  QLORA_INLINE void finish(float*, int64_t, int64_t, bool) {}
  QLORA_INLINE Vec step(Vec x, Vec w, Vec sum) { return fma(x, w, sum); }
};

// Whether tasks may pack x for themselves (Cut in gemm-inl.h). Of f32 a task's rows of a chunk stay in its
// second-level cache, and packing costs little beside the sums.
template <class Operand>
QLORA_INLINE constexpr bool own_x(Operand) {
  return false;
}
QLORA_INLINE constexpr bool own_x(AsStored) {
  return true;
}

// The pair that an odd kc leaves incomplete: its second element is zero.
QLORA_INLINE void complete_pair(float* packed, int64_t kc, int64_t width) {
  if (kc % 2 != 0) __builtin_memset(packed + kc * width, 0, static_cast<size_t>(width) * sizeof(float));
}

// bf16 values kept as f32. A step takes two rows, the odd one first: with denormals flushed, that is what
// vdpbf16ps computes.
struct Bf16 {
  using Session = FlushDenormals<true>;
  static constexpr bool kFlush = true, kFewRows = true;
  static constexpr int64_t kChunkStep = 8, kTileRows = kMr, kPanelTasks = 24;
  QLORA_INLINE int64_t tile_floats(int64_t kc) { return column_tile_floats(kc); }
  static constexpr int64_t kChunkMax = kBf16ChunkMax;
  static constexpr int64_t kBytes = 4, kRowsBytes = 2560 << 10;
  static constexpr int kRows = 2;
  QLORA_INLINE int64_t steps(int64_t kc) { return (kc + 1) / 2; }
  // exact: the values are bf16 already.
  QLORA_INLINE void finish(float* packed, int64_t kc, int64_t width, bool exact) {
    complete_pair(packed, kc, width);
    if (exact) return;
    const int64_t n = kc * width;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(packed + i, operand_bf16(load(packed + i)));
    if (i < n) store_n(packed + i, operand_bf16(load_n(packed + i, n - i)), n - i);
  }
  QLORA_INLINE Vec step(Vec x, Vec w, Vec sum) { return fma(x, w, sum); }
};

// The same values, summed as tdpbf16ps does (args_matmul.h); multiply_tile() is in amx_sums-inl.h.
constexpr int64_t kAmxChunkMax = 768;  // a panel of w fills the first cache, tiles of x pass it by
struct AmxSums : Bf16 {
  static constexpr int64_t kChunkMax = kAmxChunkMax;
  static constexpr bool kFewRows = false;
  static constexpr int64_t kChunkStep = 32;
};

#if QLORA_PAIRS
// Pairs of bf16 values in words of 32 bits, the odd one above. A step is one vdpbf16ps, or what stands for
// it.
struct Bf16Pairs {
  using Session = FlushDenormals<true>;
  static constexpr bool kFlush = true, kFewRows = true;
  static constexpr int64_t kChunkStep = 8, kTileRows = kMr, kPanelTasks = 24;
  QLORA_INLINE int64_t tile_floats(int64_t kc) { return column_tile_floats(kc); }
  static constexpr int64_t kChunkMax = kBf16ChunkMax;
  static constexpr int64_t kBytes = 2, kRowsBytes = 2560 << 10;
  static constexpr int kRows = 1;
  QLORA_INLINE int64_t steps(int64_t kc) { return (kc + 1) / 2; }
  // In place: row j of the result lies where rows 2j and 2j + 1 have been read. A width that is no multiple
  // of the lanes runs over into the next row, which is written later; the last one into the slack.
  QLORA_INLINE void finish(float* packed, int64_t kc, int64_t width, bool) {
    complete_pair(packed, kc, width);
    for (int64_t j = 0; j < (kc + 1) / 2; ++j)
      for (int64_t i = 0; i < width; i += kLanes) {
        const Vec even = load(packed + 2 * j * width + i), odd = load(packed + (2 * j + 1) * width + i);
        istore(packed + j * width + i, pair(even, odd));
      }
  }
  QLORA_INLINE Vec step(Vec x, Vec w, Vec sum) { return dot_pairs(x, w, sum); }
};
using Bf16Best = Bf16Pairs;
#else
using Bf16Best = Bf16;
#endif

// Packing for an operand, of what it says above: in general as f32, which is then finished in place.
template <class Operand>
QLORA_INLINE void pack_x_as(Operand, const float* p, int64_t ld, bool transposed, int64_t rows, int64_t kc,
                            float* out) {
  pack_x_tile(p, ld, transposed, rows, kc, out);
  Operand::finish(out, kc, kMr, false);
}
// The same of rows of a stored operand.
template <class Operand>
QLORA_INLINE void pack_x_as(Operand, const uint16_t* p, int64_t ld, int64_t rows, int64_t kc, float* out) {
  pack_x_rows(p, ld, rows, kc, out);
  Operand::finish(out, kc, kMr, true);
}
template <class Operand, class T>
QLORA_INLINE void pack_w_as(Operand, const T* p, int64_t ld, bool rows_are_k, int64_t cols, int64_t kc,
                            float* out) {
  pack_w_dense(p, ld, rows_are_k, cols, kc, out);
  Operand::finish(out, kc, kNr, sizeof(T) == sizeof(uint16_t));
}
template <class Operand>
QLORA_INLINE void pack_codes_as(Operand, const Codes& w, bool rows_are_k, int64_t k, int64_t kc,
                                int64_t column, int64_t cols, float* out) {
  with_levels(w, [&](const auto& levels) {
    if (rows_are_k)
      decode_panel_nn(levels, w, k, kc, column, cols, out);
    else
      decode_panel_nt(levels, w, k, kc, column, cols, out);
  });
  Operand::finish(out, kc, kNr, false);
}
