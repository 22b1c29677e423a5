// Eight columns of codes as pairs of bf16, with AVX512-VBMI. Of 4 bits: the scaled levels of a block are
// rounded once, as the packed product rounds them; those of eight columns fill 128 bytes of low halves and as
// many of high ones, which one permutation each looks up for 64 codes.

constexpr bool kDotsFlush = true;  // vdpbf16ps needs no flags to flush denormals

// The levels, and what stands where when codes are brought together. A byte holds a pair.
struct PairTables {
  __m512i low[2], high[2];
};
struct PairLevels {
  static constexpr int kBits = 4;
  using Tables = PairTables;
  __m512 levels;
  __m512i low, high;  // the lower and upper bytes of 64 words
  __m512i bytes[2];  // of eight rows of 16: the first and the last eight of each, a quad of rows side by side
  __m512i shifts[2];  // that bring down the codes of the first and the last four bytes of a word of 64 bits
  __m512i nibble, column;  // what a lookup takes from a code, and from the place of its column
  explicit PairLevels(const float* p) : levels(_mm512_loadu_ps(p)), nibble(_mm512_set1_epi8(15)) {
    alignas(64) uint8_t t[7][64];
    constexpr uint8_t kShifts[8] = {4, 0, 12, 8, 20, 16, 28, 24};
    for (int i = 0; i < 64; ++i) {
      // Unpacking takes the lower words of all quarters for two pairs, the upper ones for the next two.
      const int at = i % 8, quarter = i / 16, upper = i / 8 % 2;
      const int quad = 4 * (quarter % 2), pair = 4 * (at / 4) + 2 * upper + quarter / 2;
      t[0][i] = static_cast<uint8_t>(2 * i);
      t[1][i] = static_cast<uint8_t>(2 * i + 1);
      t[2][i] = static_cast<uint8_t>((quad + at % 4) * 16 + pair);
      t[3][i] = static_cast<uint8_t>(t[2][i] + 8);
      t[4][i] = kShifts[at];
      t[5][i] = static_cast<uint8_t>(kShifts[at] + 32);
      t[6][i] = static_cast<uint8_t>((quad + at / 2) * 16);
    }
    low = _mm512_load_si512(t[0]);
    high = _mm512_load_si512(t[1]);
    for (int i = 0; i < 2; ++i) {
      bytes[i] = _mm512_load_si512(t[2 + i]);
      shifts[i] = _mm512_load_si512(t[4 + i]);
    }
    column = _mm512_load_si512(t[6]);
  }
};

QLORA_INLINE PairTables pair_tables(const PairLevels& c, const float* scales) {
  IVec w[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Vec levels = {c.levels};
    w[i] = narrow(levels * set1(scales[2 * i]), levels * set1(scales[2 * i + 1]));
  }
  PairTables t;
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    t.low[i] = _mm512_permutex2var_epi8(w[2 * i].v, c.low, w[2 * i + 1].v);
    t.high[i] = _mm512_permutex2var_epi8(w[2 * i].v, c.high, w[2 * i + 1].v);
  }
  return t;
}

// The scaled levels of two blocks of a row, rounded: sixteen words each.
struct WordTable {
  __m512i levels;
};
QLORA_INLINE WordTable word_table(Vec first, Vec second) {
  return {narrow(first, second).v};
}
// How codes of a row become places of bytes in that table: bit 0 says which byte of a word, four bits are the
// code, bit 5 says which block. (A permutation of words costs two of bytes.)
struct WordPlaceTables {
  alignas(64) uint8_t bytes[64] = {}, shifts[4][64] = {}, rest[2][64] = {};
  constexpr WordPlaceTables() {
    for (int i = 0; i < 64; ++i) {
      const int at = i % 8;
      bytes[i] = static_cast<uint8_t>(16 * (at / 2) + 2 * (i / 8) + at % 2);
      for (int vector = 0; vector < 4; ++vector)
        shifts[vector][i] = static_cast<uint8_t>((16 * vector + 8 * (at / 4) + (at % 4 < 2 ? 3 : 63)) % 64);
      for (int block = 0; block < 2; ++block) rest[block][i] = static_cast<uint8_t>(32 * block + i % 2);
    }
  }
};
struct WordPlaces {
  __m512i bytes;            // bring together, in every eight, two bytes of codes for each of four vectors
  __m512i shifts[4];        // bring down the codes of a vector
  __m512i nibble, rest[2];  // what a place takes from there, and its other bits
  WordPlaces() : nibble(_mm512_set1_epi8(0x1e)) {
    static constexpr WordPlaceTables kTables;
    bytes = _mm512_load_si512(kTables.bytes);
    for (int i = 0; i < 4; ++i) shifts[i] = _mm512_load_si512(kTables.shifts[i]);
    for (int i = 0; i < 2; ++i) rest[i] = _mm512_load_si512(kTables.rest[i]);
    // A compiler that knows them makes them anew for every row, by permutations.
    asm("" : "+v"(bytes), "+v"(nibble), "+v"(rest[0]), "+v"(rest[1]));
    asm("" : "+v"(shifts[0]), "+v"(shifts[1]), "+v"(shifts[2]), "+v"(shifts[3]));
  }
};
// The elements of 32 codes of a row for each of kVectors, to every step-th place of `to`. Those of the third
// and the fourth are in the second block.
template <int kVectors>
QLORA_INLINE void lookup_words(const WordPlaces& p, const WordTable& t, const uint8_t* codes, float* to,
                               int64_t step) {
  __m512i v;
  if constexpr (kVectors == 4)
    v = _mm512_loadu_si512(codes);
  else
    v = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  v = _mm512_permutexvar_epi8(p.bytes, v);
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) {
    const __m512i places = _mm512_ternarylogic_epi32(_mm512_multishift_epi64_epi8(p.shifts[i], v), p.nibble,
                                                     p.rest[i / 2], 0xea);
    _mm512_store_si512(to + i * step, _mm512_permutexvar_epi8(places, t.levels));
  }
}

// Pairs of sixteen columns, from eight bytes of codes of an even and of an odd row, which are the first and
// the second block of the table.
QLORA_INLINE IVec lookup_pairs(const WordTable& t, const uint8_t* even, const uint8_t* odd) {
  const auto eight = [](const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); };
  const __m512i bytes = _mm512_cvtepu16_epi64(_mm_unpacklo_epi8(eight(even), eight(odd)));
  // Of two bytes the high nibbles, then the low ones, each as the places of both bytes of a word.
  const __m512i nibbles = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x07073f3f0b0b0303), bytes);
  const __m512i places = _mm512_ternarylogic_epi32(nibbles, _mm512_set1_epi8(0x1e),
                                                   _mm512_set1_epi32(0x21200100), 0xea);  // (a & b) | c
  return {_mm512_permutexvar_epi8(places, t.levels)};
}

// Sixteen bytes of each of four rows.
QLORA_INLINE __m512i four_rows(const uint8_t* p, int64_t ld) {
  const auto row = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * ld)); };
  __m512i v = _mm512_castsi128_si512(row(0));
  v = _mm512_mask_broadcast_i32x4(v, 0x00f0, row(1));
  v = _mm512_mask_broadcast_i32x4(v, 0x0f00, row(2));
  return _mm512_mask_broadcast_i32x4(v, 0xf000, row(3));
}

// out[8 j + i] = pair j of row i, from the 32 codes at p + i * ld.
QLORA_INLINE void decode_pairs8(const PairLevels& c, const PairTables& t, const uint8_t* p, int64_t ld,
                                uint32_t* out) {
  const __m512i a = four_rows(p, ld), b = four_rows(p + 4 * ld, ld);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i bytes = _mm512_permutex2var_epi8(a, c.bytes[i / 2], b);
    const __m512i codes = _mm512_ternarylogic_epi32(_mm512_multishift_epi64_epi8(c.shifts[i % 2], bytes),
                                                    c.nibble, c.column, 0xea);
    const __m512i low = _mm512_permutex2var_epi8(t.low[0], codes, t.low[1]);
    const __m512i high = _mm512_permutex2var_epi8(t.high[0], codes, t.high[1]);
    _mm512_store_si512(out + 32 * i, _mm512_unpacklo_epi8(low, high));
    _mm512_store_si512(out + 32 * i + 16, _mm512_unpackhi_epi8(low, high));
  }
}

// Of 8 bits: levels are computed, and words of eight rows transposed.
struct PairScales {
  float of[8];
};
struct PairBytes {
  static constexpr int kBits = 8;
  using Tables = PairScales;
};
QLORA_INLINE PairScales pair_tables(const PairBytes&, const float* scales) {
  PairScales t;
  __builtin_memcpy(t.of, scales, sizeof(t.of));
  return t;
}
QLORA_INLINE __m512i pairs_of_32(const uint8_t* p, float scale) {
  const auto sixteen = [&](int i) {
    const Vec v = to_float(load_bytes(p + i));
    return fma(v, set1(Int8::kStep), v * set1(Int8::kStepRest)) * set1(scale);
  };
  return narrow(sixteen(0), sixteen(16)).v;
}
QLORA_INLINE void decode_pairs8(const PairBytes&, const PairScales& t, const uint8_t* p, int64_t ld,
                                uint32_t* out) {
  __m512i four[2][4];  // [rows 0 to 3, 4 to 7][i]: quarter q is words 4 q + i of the four
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const auto row = [&](int i) { return pairs_of_32(p + (4 * h + i) * ld, t.of[4 * h + i]); };
    const __m512i a = row(0), b = row(1), c = row(2), d = row(3);
    const __m512i ab = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
    const __m512i cd = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
    four[h][0] = _mm512_unpacklo_epi64(ab, cd);
    four[h][1] = _mm512_unpackhi_epi64(ab, cd);
    four[h][2] = _mm512_unpacklo_epi64(ab_high, cd_high);
    four[h][3] = _mm512_unpackhi_epi64(ab_high, cd_high);
  }
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                last = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const __m512i v = _mm512_permutex2var_epi64(four[0][i], h == 0 ? first : last, four[1][i]);
      auto* to = reinterpret_cast<__m256i*>(out + 8 * (8 * h + i));
      _mm256_store_si256(to, _mm512_castsi512_si256(v));
      _mm256_store_si256(to + 4, _mm512_extracti64x4_epi64(v, 1));
    }
}

QLORA_INLINE __m256 dot_pairs8(uint32_t x, const uint32_t* w, __m256 sum) {
  return _mm256_dpbf16_ps(sum, (__m256bh)_mm256_set1_epi32(static_cast<int32_t>(x)),
                          (__m256bh)_mm256_load_si256(reinterpret_cast<const __m256i*>(w)));
}
