// Packing as pairs of bf16 (Bf16Pairs in operands-inl.h): rounded and paired while still in registers, so
// that nothing is written as f32 in between. Row j of what is packed holds values 2j and 2j + 1 of k. What
// does not come in the shapes that these functions take is packed as f32 and rounded in place.

#if QLORA_PAIRS

// n (or more) values of a row as pairs: 32 of k, zeros beyond n.
QLORA_INLINE IVec load_pairs(const uint16_t* p, int64_t n) {
  return load_halves(p, n);
}
QLORA_INLINE IVec load_pairs(const float* p, int64_t n) {
  if (n >= 2 * kLanes) return narrow(load(p), load(p + kLanes));
  return narrow(load_n(p, smaller(n, kLanes)), load_n(p + kLanes, larger(n - kLanes, 0)));
}

// out[j * stride + i] = pair j of row i, for rows [0, rows) and kc values of k; zeros for the missing of
// sixteen rows. row(i, k, n): n values of row i from k on, as load_pairs. kRows: how many rows, when that is
// known. Writes sixteen words of every row, upwards (see transpose_rows).
template <int kRows, class Row>
QLORA_INLINE void transpose_pairs_of(int64_t rows, int64_t kc, float* out, int64_t stride, const Row& row) {
  const int64_t count = kRows > 0 ? kRows : rows;
  for (int64_t k = 0; k < kc; k += 2 * kLanes) {
    IVec r[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) r[i] = i < count ? row(i, k, kc - k) : iset1(0);
    transpose16(r);
    float* to = out + k / 2 * stride;
    if (kc - k >= 2 * kLanes) {
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) istore(to + j * stride, r[j]);
    } else {
      for (int64_t j = 0; j < (kc - k + 1) / 2; ++j) istore(to + j * stride, r[j]);
    }
  }
}
template <class Row>
QLORA_INLINE void transpose_pairs(int64_t rows, int64_t kc, float* out, int64_t stride, const Row& row) {
  if (rows >= kLanes)
    transpose_pairs_of<kLanes>(rows, kc, out, stride, row);
  else if (rows == kMr)
    transpose_pairs_of<kMr>(rows, kc, out, stride, row);
  else
    transpose_pairs_of<0>(larger(rows, 0), kc, out, stride, row);
}
static_assert(kMr < kLanes && kNr == 2 * kLanes);

// A tile of x, of rows as they lie.
template <class T>
QLORA_INLINE void pack_pairs_of_rows(const T* p, int64_t ld, int64_t rows, int64_t kc, float* out) {
  transpose_pairs(rows, kc, out, kMr,
                  [&](int64_t i, int64_t k, int64_t n) { return load_pairs(p + i * ld + k, n); });
}
QLORA_INLINE void pack_x_as(Bf16Pairs, const uint16_t* p, int64_t ld, int64_t rows, int64_t kc, float* out) {
  pack_pairs_of_rows(p, ld, rows, kc, out);
}
QLORA_INLINE void pack_x_as(Bf16Pairs, const float* p, int64_t ld, bool transposed, int64_t rows, int64_t kc,
                            float* out) {
  if (transposed) {
    for (int64_t k = 0; k < kc; k += 2, p += 2 * ld, out += kMr)
      istore(out, pair(load_n(p, rows), k + 1 < kc ? load_n(p + ld, rows) : zero()));
    return;
  }
  pack_pairs_of_rows(p, ld, rows, kc, out);
}

// Values k and k + 1 of `lanes` columns, of rows p and p + ld; the second one missing: zeros.
QLORA_INLINE IVec pair_of_rows(const float* p, int64_t ld, bool both, int64_t lanes) {
  return pair(load_some(p, lanes), both ? load_some(p + ld, lanes) : zero());
}
QLORA_INLINE IVec pair_of_rows(const uint16_t* p, int64_t ld, bool both, int64_t lanes) {
  const IVec even = load_wide_halves(p, lanes);
  return both ? even ^ shift_left<16>(load_wide_halves(p + ld, lanes)) : even;
}

// A panel of dense w.
constexpr int64_t kRowsAhead = 16;
template <class T>
QLORA_INLINE void pack_w_as(Bf16Pairs, const T* p, int64_t ld, bool rows_are_k, int64_t cols, int64_t kc,
                            float* out) {
  const auto lanes_at = [&](int64_t j) { return larger(0, smaller(kLanes, cols - j)); };
  if (rows_are_k) {
    // Rows lie pages apart, where no prefetcher of the machine follows.
    for (int64_t k = 0; k < kc; k += 2) {
      if (k + kRowsAhead < kc) {
        __builtin_prefetch(p + (k + kRowsAhead) * ld);
        __builtin_prefetch(p + (k + kRowsAhead + 1) * ld);
      }
      for (int64_t j = 0; j < kNr; j += kLanes)
        istore(out + k / 2 * kNr + j, pair_of_rows(p + k * ld + j, ld, k + 1 < kc, lanes_at(j)));
    }
    return;
  }
  for (int64_t j = 0; j < kNr; j += kLanes)
    transpose_pairs(lanes_at(j), kc, out + j, kNr,
                    [&](int64_t i, int64_t k, int64_t n) { return load_pairs(p + (j + i) * ld + k, n); });
}

// The values of k in a word of codes of sixteen rows, in rows of the panel: eight in four, or four in two.
QLORA_INLINE void decode_pairs_of(const Table16& t, IVec words, Vec scale, float* out) {
  istore(out, pair(lookup(t, shift_right<4>(words)) * scale, lookup(t, words) * scale));
  istore(out + kNr,
         pair(lookup(t, shift_right<12>(words)) * scale, lookup(t, shift_right<8>(words)) * scale));
  istore(out + 2 * kNr,
         pair(lookup(t, shift_right<20>(words)) * scale, lookup(t, shift_right<16>(words)) * scale));
  istore(out + 3 * kNr,
         pair(lookup(t, shift_right<28>(words)) * scale, lookup(t, shift_right<24>(words)) * scale));
}
QLORA_INLINE void decode_pairs_of(const Levels8&, IVec words, Vec scale, float* out) {
  istore(out, pair(int8_levels(signed_byte<0>(words)) * scale, int8_levels(signed_byte<1>(words)) * scale));
  istore(out + kNr,
         pair(int8_levels(signed_byte<2>(words)) * scale, int8_levels(signed_byte<3>(words)) * scale));
}

// Sixteen rows of codes [n, k] of kBits, from row and value k0 on. REQUIRES: blocks begin and end with the
// steps of 32 of k, for all rows alike.
template <int kBits, class Levels>
QLORA_INLINE void decode_pairs_nt(const Codes& w, const Levels& levels, int64_t row, int64_t k0, int64_t kc,
                                  float* out) {
  constexpr int64_t kWords = 128 / kBits;  // values of k in sixteen bytes
  const BlockOf block_of(w.block);
  const int64_t ld = w.cols * kBits / 8;
  const uint8_t* p = w.data + row * ld + k0 * kBits / 8;
  Vec scale = zero();
  int64_t next_block = k0;
  for (int64_t k = 0; k < kc; k += kWords, p += 16) {
    if (k0 + k >= next_block) {
      scale = scales_of_rows(w, block_of, row, k0 + k);
      next_block = (k0 + k) / w.block * w.block + w.block;
    }
    IVec words[4];
    load_four_words(p, ld, words);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      decode_pairs_of(levels, words[i], scale, out + (k + i * kWords / 4) / 2 * kNr);
  }
}

// Columns of codes [k, n], from row k0 and `column` on: one vector of them, or two, which blocks do not part.
// REQUIRES: an even kc, whole vectors.
QLORA_INLINE void decode_pairs_nn(const Codes& w, const Levels8& levels, int64_t k0, int64_t kc,
                                  int64_t column, int64_t cols, float* out) {
  const BlockOf block_of(w.block);
  const auto row = [&](int64_t e) { return levels_in_row(levels, w.data, e) * set1(w.absmax[block_of(e)]); };
  int64_t e = k0 * w.cols + column;
  for (int64_t k = 0; k < kc; k += 2, e += 2 * w.cols, out += kNr)
    for (int64_t j = 0; j < cols; j += kLanes) istore(out + j, pair(row(e + j), row(e + j + w.cols)));
}
// Of 4 bits: the scaled levels of both rows are rounded once, and a lookup finds pairs.
QLORA_INLINE void decode_pairs_nn(const Codes& w, const Table16&, int64_t k0, int64_t kc, int64_t column,
                                  int64_t cols, float* out) {
  const BlockOf block_of(w.block);
  const Vec levels = load(w.levels);
  const auto scaled = [&](int64_t e) { return levels * set1(w.absmax[block_of(e)]); };
  int64_t e = k0 * w.cols + column;
  for (int64_t k = 0; k < kc; k += 2, e += 2 * w.cols, out += kNr) {
    const WordTable table = word_table(scaled(e), scaled(e + w.cols));
    const uint8_t *even = w.data + e / 2, *odd = even + w.cols / 2;
    for (int64_t j = 0; j < cols; j += kLanes)
      istore(out + j, lookup_pairs(table, even + j / 2, odd + j / 2));
  }
}

template <int kBits, class Levels>
static void decode_pairs(const Codes& w, const Levels& levels, bool rows_are_k, int64_t k, int64_t kc,
                         int64_t column, int64_t cols, float* out) {
  for (int64_t j = 0; j < kNr; j += kLanes) {
    if (j >= cols) {
      for (int64_t i = 0; i < kc / 2; ++i) store(out + i * kNr + j, zero());
    } else if (!rows_are_k) {
      decode_pairs_nt<kBits>(w, levels, column + j, k, kc, out + j);
    }
  }
  if (rows_are_k) decode_pairs_nn(w, levels, k, kc, column, cols, out);
}

// A panel of w from codes.
QLORA_INLINE void pack_codes_as(Bf16Pairs, const Codes& w, bool rows_are_k, int64_t k, int64_t kc,
                                int64_t column, int64_t cols, float* out) {
  const bool whole = cols % kLanes == 0 && w.cols % 32 == 0 && w.block % 32 == 0;
  const bool fits =
      rows_are_k ? whole && kc % 2 == 0 : whole && w.cols % w.block == 0 && k % 32 == 0 && kc % 32 == 0;
  if (!fits) return pack_codes_as<Bf16Pairs>(Bf16Pairs{}, w, rows_are_k, k, kc, column, cols, out);
  if (w.bits == 8)
    decode_pairs<8>(w, Levels8(w.levels), rows_are_k, k, kc, column, cols, out);
  else
    decode_pairs<4>(w, load_table(w.levels), rows_are_k, k, kc, column, cols, out);
}

// Two panels at once of rows of w, of 128 bytes each; the second lies `stride` floats behind the first.
// REQUIRES: an even kc, whole panels.
QLORA_INLINE void pack_two_panels(const uint16_t* p, int64_t ld, int64_t kc, float* out, int64_t stride) {
  for (int64_t k = 0; k < kc; k += 2, p += 2 * ld, out += kNr) {
    for (int64_t row = 0; row < 2 && k + kRowsAhead < kc; ++row) {
      __builtin_prefetch(p + (kRowsAhead + row) * ld);
      __builtin_prefetch(p + (kRowsAhead + row) * ld + kNr);
    }
#pragma GCC unroll 4
    for (int64_t j = 0; j < 2 * kNr; j += kLanes)
      istore(out + j / kNr * stride + j % kNr, pair_of_rows(p + j, ld, true, kLanes));
  }
}

#endif
