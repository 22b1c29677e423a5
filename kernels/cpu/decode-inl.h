// From codes to f32: value = f32(level * absmax), one product and no other rounding, so that every path
// gives the same bits as the scalar definition (kernels/quant/decode.h).

QLORA_INLINE float decode_one(const Codes& w, int64_t element) {
  const float absmax = w.absmax[element / w.block - w.first_block];
  if (w.bits == 8) return w.levels[w.data[element]] * absmax;
  int byte = w.data[element / 2];
  int code = (element & 1) != 0 ? byte & 15 : byte >> 4;
  return w.levels[code] * absmax;
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
  const ScaleMap map(w.code_map);
  for (int64_t i = begin; i < end;) {
    const int64_t stop = smaller(end, (i / 256 + 1) * 256);
    expand_group(map, w.absmax_codes + i, stop - i, w.nested_absmax[i / 256], w.nested_offset, out);
    out += stop - i;
    i = stop;
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

// The same for the blocks that elements [begin, end) of the flattened matrix touch, in `absmax`, which has
// room for them.
static Codes with_scales_in(const Codes& w, int64_t begin, int64_t end, float* absmax) {
  if (w.absmax != nullptr) return w;
  Codes some = w;
  some.first_block = begin / w.block;
  some.absmax = absmax;
  expand_scales(*w.nested, some.first_block, (end + w.block - 1) / w.block, absmax);
  return some;
}
// For one task.
static Codes with_scales_of(const Codes& w, int64_t begin, int64_t end) {
  if (w.absmax != nullptr) return w;
  const int64_t blocks = (end + w.block - 1) / w.block - begin / w.block;
  return with_scales_in(w, begin, end, cpu::scratch(cpu::Scratch::absmax, blocks));
}

// And that rows [begin, end) of it touch.
static Codes with_scales(const Codes& w, int64_t begin, int64_t end) {
  return with_scales_of(w, begin * w.cols, end * w.cols);
}

// How the levels of codes are found. 4 bits: looked up; where that is eight lanes, by their bytes (two thirds
// of the work of floats).
struct Levels4 {
  static constexpr int kBits = 4;
  Table16 table;
  ByteTables bytes;
  explicit Levels4(const float* levels) : table(load_table(levels)), bytes(levels) {}
};
// 8 bits: computed.
struct Levels8 {
  static constexpr int kBits = 8;
  explicit Levels8(const float*) {}
};
// body(levels) with those of a matrix.
template <class Body>
QLORA_INLINE void with_levels(const Codes& w, const Body& body) {
  w.bits == 8 ? body(Levels8(w.levels)) : body(Levels4(w.levels));
}

QLORA_INLINE Vec int8_levels(IVec k) {
  const Vec v = to_float(k);
  return fma(v, set1(Int8::kStep), v * set1(Int8::kStepRest));
}
// Byte kByte of every lane, as a signed number.
template <int kByte>
QLORA_INLINE IVec signed_byte(IVec words) {
  return shift_right_signed<24>(shift_left<24 - 8 * kByte>(words));
}

// The levels of kLanes codes from element e on.
QLORA_INLINE Vec levels_in_row(const Table16& table, const uint8_t* codes, int64_t e) {
  return lookup(table, spread_codes(codes + e / 2));
}
QLORA_INLINE Vec levels_in_row(const Levels4& t, const uint8_t* codes, int64_t e) {
  return levels_in_row(t.table, codes, e);
}
QLORA_INLINE Vec levels_in_row(const Levels8&, const uint8_t* codes, int64_t e) {
  return int8_levels(load_bytes(codes + e));
}

// nn panel: rows [k0, k0 + kc) of the matrix, columns [c0, c0 + cols), as [kc][kNr].
template <class Levels>
static void decode_panel_nn(const Levels& levels, const Codes& w, int64_t k0, int64_t kc, int64_t c0,
                            int64_t cols, float* out) {
  if (w.cols % kLanes != 0 || w.block % kLanes != 0) {
    for (int64_t k = 0; k < kc; ++k)
      for (int64_t j = 0; j < kNr; ++j)
        out[k * kNr + j] = j < cols ? decode_one(w, (k0 + k) * w.cols + c0 + j) : 0.0f;
    return;
  }
  const BlockOf block_of(w.block);
  for (int64_t j = 0; j < kNr; j += kLanes) {
    if (j >= cols) {
      for (int64_t k = 0; k < kc; ++k) store(out + k * kNr + j, zero());
      continue;
    }
    int64_t e = k0 * w.cols + c0 + j;
    for (int64_t k = 0; k < kc; ++k, e += w.cols)
      store(out + k * kNr + j, levels_in_row(levels, w.data, e) * set1(w.absmax[block_of(e)]));
  }
}

// The values of k in a word of codes of kLanes rows, one lane a row.
template <int kShift>
QLORA_INLINE void decode_column(const Table16& table, IVec words, Vec scale, float* out) {
  store(out, lookup(table, shift_right<kShift>(words)) * scale);
}
template <class Words, class Scale>
QLORA_INLINE void decode_words(const Levels4& t, Words words, Scale scale, float* out) {
  if constexpr (kLanes == 8) {
    __m256i even[4], odd[4];
    levels_of_words(t.bytes, words.v, even, odd);
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      _mm256_storeu_ps(out + 2 * b * kNr, _mm256_mul_ps(_mm256_castsi256_ps(even[b]), scale.v));
      _mm256_storeu_ps(out + (2 * b + 1) * kNr, _mm256_mul_ps(_mm256_castsi256_ps(odd[b]), scale.v));
    }
  } else {
    decode_column<4>(t.table, words, scale, out);
    decode_column<0>(t.table, words, scale, out + kNr);
    decode_column<12>(t.table, words, scale, out + 2 * kNr);
    decode_column<8>(t.table, words, scale, out + 3 * kNr);
    decode_column<20>(t.table, words, scale, out + 4 * kNr);
    decode_column<16>(t.table, words, scale, out + 5 * kNr);
    decode_column<28>(t.table, words, scale, out + 6 * kNr);
    decode_column<24>(t.table, words, scale, out + 7 * kNr);
  }
}
QLORA_INLINE void decode_words(const Levels8&, IVec words, Vec scale, float* out) {
  store(out, int8_levels(signed_byte<0>(words)) * scale);
  store(out + kNr, int8_levels(signed_byte<1>(words)) * scale);
  store(out + 2 * kNr, int8_levels(signed_byte<2>(words)) * scale);
  store(out + 3 * kNr, int8_levels(signed_byte<3>(words)) * scale);
}

// The absmax of kLanes rows at column k.
QLORA_INLINE Vec scales_of_rows(const Codes& w, BlockOf block_of, int64_t row, int64_t k) {
  alignas(64) float s[kLanes];
  for (int i = 0; i < kLanes; ++i) s[i] = w.absmax[block_of((row + i) * w.cols + k)];
  return load(s);
}

// nt panel: rows [n0, n0 + cols) of the matrix become columns, values [k0, k0 + kc) of k, as [kc][kNr].
// The codes of kLanes rows are decoded lane by lane, so that nothing has to be transposed.
template <class Levels>
static void decode_panel_nt(const Levels& levels, const Codes& w, int64_t k0, int64_t kc, int64_t n0,
                            int64_t cols, float* out) {
  constexpr int64_t kWord = 32 / Levels::kBits,
                    kWords = 4 * kWord;  // values of k in a word, and in sixteen bytes
  const BlockOf block_of(w.block);
  const bool whole_words = w.cols % 8 == 0 && w.block % 8 == 0 && k0 % 8 == 0 && kc % 8 == 0;
  const bool aligned_rows = w.cols % w.block == 0;  // then all rows change block at the same k
  for (int64_t j = 0; j < kNr; j += kLanes) {
    if (!whole_words || j + kLanes > cols) {
      for (int64_t k = 0; k < kc; ++k)
        for (int64_t i = j; i < j + kLanes; ++i)
          out[k * kNr + i] = i < cols ? decode_one(w, (n0 + i) * w.cols + k0 + k) : 0.0f;
      continue;
    }
    const int64_t row = n0 + j, ld = w.cols * Levels::kBits / 8;
    const uint8_t* p = w.data + row * ld + k0 * Levels::kBits / 8;
    Vec scale = scales_of_rows(w, block_of, row, k0);
    int64_t next_block = (k0 / w.block + 1) * w.block;
    for (int64_t k = 0; k < kc; k += kWords, p += 16) {
      IVec words[4] = {};
      const int64_t steps = smaller(4, (kc - k) / kWord);
      if (steps == 4)
        load_four_words(p, ld, words);
      else
        for (int64_t i = 0; i < steps; ++i) words[i] = load_words(p + 4 * i, ld);
#pragma GCC unroll 4
      for (int64_t i = 0; i < steps; ++i) {
        const int64_t at = k + kWord * i;
        if (!aligned_rows || k0 + at == next_block) {
          scale = scales_of_rows(w, block_of, row, k0 + at);
          if (aligned_rows) next_block += w.block;
        }
        decode_words(levels, words[i], scale, out + at * kNr + j);
      }
    }
  }
}
