// From 4-bit codes to f32: value = f32(level * absmax), one product and no other rounding, so that every path
// gives the same bits as the scalar definition (kernels/quant/decode.h).

QLORA_INLINE float decode_one(const Codes& w, int64_t element) {
  int byte = w.data[element / 2];
  int code = (element & 1) != 0 ? byte & 15 : byte >> 4;
  return w.levels[code] * w.absmax[element / w.block - w.first_block];
}

// The block of an element; a shift where the block size allows, because this runs once per 16 elements.
struct BlockOf {
  int64_t block;
  int shift;
  explicit BlockOf(int64_t b)
      : block(b), shift((b & (b - 1)) == 0 ? __builtin_ctzll(static_cast<uint64_t>(b)) : -1) {}
  int64_t operator()(int64_t element) const { return shift >= 0 ? element >> shift : element / block; }
};

// Scales [begin, end): double quantization undone, with two roundings per value, as defined.
//   absmax[i] = f32(f32(map[codes[i]] * nested[i / 256]) + offset)
static void expand_scales(const WeightView& w, int64_t begin, int64_t end, float* out) {
  const float* map = w.code_map;
  const float offset = w.nested_offset;
  for (int64_t i = begin; i < end;) {
    const float nested = w.nested_absmax[i / 256];
    const int64_t stop = smaller(end, (i / 256 + 1) * 256);
#pragma GCC unroll 4
    for (; i < stop; ++i) *out++ = map[w.absmax_codes[i]] * nested + offset;
  }
}

// The same matrix with the absmax of every block. They stay where the calling thread's scratch is.
static Codes with_scales(const Codes& w) {
  if (w.absmax != nullptr) return w;
  const int64_t blocks = (w.rows * w.cols + w.block - 1) / w.block;
  float* absmax = cpu::scratch(cpu::Scratch::absmax, blocks);
  parallel(blocks, 16384,
           [&](int64_t begin, int64_t end) { expand_scales(*w.nested, begin, end, absmax + begin); });
  Codes all = w;
  all.absmax = absmax;
  return all;
}

// The same for the blocks that rows [begin, end) of the matrix touch: for one task.
static Codes with_scales(const Codes& w, int64_t begin, int64_t end) {
  if (w.absmax != nullptr) return w;
  Codes some = w;
  some.first_block = begin * w.cols / w.block;
  const int64_t stop = (end * w.cols + w.block - 1) / w.block;
  float* absmax = cpu::scratch(cpu::Scratch::absmax, stop - some.first_block);
  expand_scales(*w.nested, some.first_block, stop, absmax);
  some.absmax = absmax;
  return some;
}

// Elements [begin, end) of the flattened matrix.
static void decode_range(const Codes& w, int64_t begin, int64_t end, float* out) {
  int64_t e = begin;
  if (w.block % kLanes == 0) {
    for (; e < end && e % kLanes != 0; ++e) *out++ = decode_one(w, e);
    const Table16 table = load_table(w.levels);
    const BlockOf block_of(w.block);
    for (; e + kLanes <= end; e += kLanes, out += kLanes)
      store(out, lookup(table, spread_codes(w.data + e / 2)) * set1(w.absmax[block_of(e)]));
  }
  for (; e < end; ++e) *out++ = decode_one(w, e);
}

// nn panel: rows [k0, k0 + kc) of the matrix, columns [c0, c0 + cols), as [kc][kNr].
static void decode_panel_nn(const Codes& w, int64_t k0, int64_t kc, int64_t c0, int64_t cols, float* out) {
  if (w.cols % kLanes != 0 || w.block % kLanes != 0) {
    for (int64_t k = 0; k < kc; ++k)
      for (int64_t j = 0; j < kNr; ++j)
        out[k * kNr + j] = j < cols ? decode_one(w, (k0 + k) * w.cols + c0 + j) : 0.0f;
    return;
  }
  const Table16 table = load_table(w.levels);
  const BlockOf block_of(w.block);
  for (int64_t j = 0; j < kNr; j += kLanes) {
    if (j >= cols) {
      for (int64_t k = 0; k < kc; ++k) store(out + k * kNr + j, zero());
      continue;
    }
    int64_t e = k0 * w.cols + c0 + j;
    for (int64_t k = 0; k < kc; ++k, e += w.cols)
      store(out + k * kNr + j, lookup(table, spread_codes(w.data + e / 2)) * set1(w.absmax[block_of(e)]));
  }
}

// Eight values of k for kLanes rows of the matrix: lane i of `words` holds the eight codes of row i.
template <int kShift>
QLORA_INLINE void decode_column(const Table16& table, IVec words, Vec scale, float* out) {
  store(out, lookup(table, shift_right<kShift>(words)) * scale);
}
QLORA_INLINE void decode_eight(const Table16& table, IVec words, Vec scale, float* out) {
  decode_column<4>(table, words, scale, out);
  decode_column<0>(table, words, scale, out + kNr);
  decode_column<12>(table, words, scale, out + 2 * kNr);
  decode_column<8>(table, words, scale, out + 3 * kNr);
  decode_column<20>(table, words, scale, out + 4 * kNr);
  decode_column<16>(table, words, scale, out + 5 * kNr);
  decode_column<28>(table, words, scale, out + 6 * kNr);
  decode_column<24>(table, words, scale, out + 7 * kNr);
}

// The absmax of kLanes rows at column k.
QLORA_INLINE Vec scales_of_rows(const Codes& w, BlockOf block_of, int64_t row, int64_t k) {
  alignas(64) float s[kLanes];
  for (int i = 0; i < kLanes; ++i) s[i] = w.absmax[block_of((row + i) * w.cols + k)];
  return load(s);
}

// nt panel: rows [n0, n0 + cols) of the matrix become columns, values [k0, k0 + kc) of k, as [kc][kNr].
// The codes of kLanes rows are looked up lane by lane, so that nothing has to be transposed.
static void decode_panel_nt(const Codes& w, int64_t k0, int64_t kc, int64_t n0, int64_t cols, float* out) {
  const BlockOf block_of(w.block);
  const bool whole_words = w.cols % 8 == 0 && w.block % 8 == 0 && k0 % 8 == 0 && kc % 8 == 0;
  const bool aligned_rows = w.cols % w.block == 0;  // then all rows change block at the same k
  const Table16 table = load_table(w.levels);
  for (int64_t j = 0; j < kNr; j += kLanes) {
    if (!whole_words || j + kLanes > cols) {
      for (int64_t k = 0; k < kc; ++k)
        for (int64_t i = j; i < j + kLanes; ++i)
          out[k * kNr + i] = i < cols ? decode_one(w, (n0 + i) * w.cols + k0 + k) : 0.0f;
      continue;
    }
    const int64_t row = n0 + j;
    const uint8_t* p = w.data + (row * w.cols + k0) / 2;
    Vec scale = scales_of_rows(w, block_of, row, k0);
    for (int64_t k = 0; k < kc; k += 8) {
      if (!aligned_rows || (k0 + k) % w.block == 0) scale = scales_of_rows(w, block_of, row, k0 + k);
      decode_eight(table, load_words(p + k / 2, w.cols / 2), scale, out + k * kNr + j);
    }
  }
}

static void dequantize(const Codes& codes, float* y) {
  const Codes w = with_scales(codes);
  parallel(w.rows * w.cols, 65536,
           [&](int64_t begin, int64_t end) { decode_range(w, begin, end, y + begin); });
}
