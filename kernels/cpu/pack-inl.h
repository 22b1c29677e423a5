// Packing for the products: x in tiles of kMr rows, w in panels of kNr columns, both with the summed index
// outermost, so that the inner loop reads two streams in order.

constexpr int kMr =
    kLanes == 8 ? 6 : 14;        // rows of a tile: accumulators fill the registers, less what operands need
constexpr int kNr = 2 * kLanes;  // columns of a panel

// Rows of eight become columns: out[j] lane i = in[i] lane j.
QLORA_INLINE void transpose8(__m256 (&r)[8]) {
  __m256 t[8], s[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    s[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    s[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    s[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    s[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x31);
  }
}

// Eight elements, and one, of f32 or stored as bf16.
QLORA_INLINE __m256 load8(const float* p) {
  return _mm256_loadu_ps(p);
}
QLORA_INLINE __m256 load8(const uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
QLORA_INLINE float load1(const float* p) {
  return *p;
}
QLORA_INLINE float load1(const uint16_t* p) {
  const uint32_t bits = static_cast<uint32_t>(*p) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// The first kc / 8 * 8 values of k of transpose_rows. kRows: how many rows, when that is known.
template <int kRows, class T>
QLORA_INLINE void transpose_blocks(const T* p, int64_t ld, int64_t rows, int64_t kc, float* out,
                                   int64_t stride) {
  const int64_t n = kRows > 0 ? kRows : rows;
  for (int64_t k = 0; k + 8 <= kc; k += 8) {
    __m256 r[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) r[i] = i < n ? load8(p + i * ld + k) : _mm256_setzero_ps();
    transpose8(r);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) _mm256_storeu_ps(out + (k + i) * stride, r[i]);
  }
}

// out[k * stride + i] = row i of p at k, for kc values of k and `rows` <= 8 rows; the lanes of missing rows
// become zero. Writes eight values at every k, also where the column is shorter: k runs upwards, so what is
// written beyond a column is overwritten by the next, and `out` needs slack at its end.
template <class T>
QLORA_INLINE void transpose_rows(const T* p, int64_t ld, int64_t rows, int64_t kc, float* out,
                                 int64_t stride) {
  if (rows == 8)
    transpose_blocks<8>(p, ld, rows, kc, out, stride);
  else if (rows == 6)
    transpose_blocks<6>(p, ld, rows, kc, out, stride);
  else
    transpose_blocks<0>(p, ld, rows, kc, out, stride);
  for (int64_t k = kc / 8 * 8; k < kc; ++k)
    for (int i = 0; i < 8; ++i) out[k * stride + i] = i < rows ? load1(p + i * ld + k) : 0.0f;
}

// The first n of eight lanes, clamped to [0, 8].
QLORA_INLINE __m256i eight_below(int64_t n) {
  alignas(64) static const int32_t table[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table + 8 - (n < 0 ? 0 : smaller(n, 8))));
}

// One tile of x: rows [0, rows) of p, values [0, kc) of k, as [kc][kMr]. transposed: x is stored [k, rows].
// Needs kTileSlack floats more: the overhang of the last column, or one more row (operands-inl.h).
constexpr int64_t kTileSlack = 16;
template <class T>
QLORA_INLINE void pack_x_rows(const T* p, int64_t ld, int64_t rows, int64_t kc, float* out) {
  // The upper rows first: the lower ones overwrite their overhang.
  if constexpr (kMr > 8) transpose_rows(p + 8 * ld, ld, rows > 8 ? rows - 8 : 0, kc, out + 8, kMr);
  transpose_rows(p, ld, rows < 8 ? rows : 8, kc, out, kMr);
}
QLORA_INLINE void pack_x_tile(const float* p, int64_t ld, bool transposed, int64_t rows, int64_t kc,
                              float* out) {
  if (transposed) {
    const __m256i low = eight_below(rows), high = eight_below(rows - 8);
    for (int64_t k = 0; k < kc; ++k) {
      _mm256_storeu_ps(out + k * kMr, _mm256_maskload_ps(p + k * ld, low));
      if constexpr (kMr > 8) _mm256_storeu_ps(out + k * kMr + 8, _mm256_maskload_ps(p + k * ld + 8, high));
    }
    return;
  }
  pack_x_rows(p, ld, rows, kc, out);
}

// The rows of a panel of w that is stored [k, n].
QLORA_INLINE void copy_rows(const uint16_t* p, int64_t ld, int64_t cols, int64_t kc, float* out) {
  for (int64_t k = 0; k < kc; ++k, p += ld, out += kNr)
    for (int64_t j = 0; j < kNr; j += 8) {
      if (j + 8 <= cols) {
        _mm256_storeu_ps(out + j, load8(p + j));
      } else {
        for (int64_t i = j; i < j + 8; ++i) out[i] = i < cols ? load1(p + i) : 0.0f;
      }
    }
}
QLORA_INLINE void copy_rows(const float* p, int64_t ld, int64_t cols, int64_t kc, float* out) {
  if (cols >= kNr) {
    for (int64_t k = 0; k < kc; ++k) {
      store(out + k * kNr, load(p + k * ld));
      store(out + k * kNr + kLanes, load(p + k * ld + kLanes));
    }
    return;
  }
  int64_t first = cols < kLanes ? cols : kLanes;
  for (int64_t k = 0; k < kc; ++k) {
    store(out + k * kNr, load_n(p + k * ld, first));
    store(out + k * kNr + kLanes, load_n(p + k * ld + first, cols - first));
  }
}

// A panel of dense w, f32 or bf16, as [kc][kNr] of f32, columns beyond `cols` zero.
// rows_are_k: w is stored [k, n], else [n, k].
template <class T>
QLORA_INLINE void pack_w_dense(const T* p, int64_t ld, bool rows_are_k, int64_t cols, int64_t kc,
                               float* out) {
  if (rows_are_k) return copy_rows(p, ld, cols, kc, out);
  for (int64_t j = 0; j < kNr; j += 8) {
    int64_t left = cols - j;
    transpose_rows(p + j * ld, ld, left < 0 ? 0 : (left < 8 ? left : 8), kc, out + j, kNr);
  }
}
