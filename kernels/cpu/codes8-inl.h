// Sixty-four 4-bit codes at a time, with AVX2: what codec-inl.h needs of an instruction set beyond
// vec8-inl.h.

// The 16 levels of a format, in the order that a table of bf16 is made in.
struct HalfLevels {
  __m256 a, b;  // 0 to 3 and 8 to 11; 4 to 7 and 12 to 15
};
QLORA_INLINE HalfLevels load_half_levels(const float* p) {
  const __m256 low = _mm256_loadu_ps(p), high = _mm256_loadu_ps(p + 8);
  return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
}

// bf16(level * scale) for every code: tables of their low and high bytes, the same in both halves.
struct HalfTable {
  __m256i low, high;
};

// Rounded to bf16 in the upper half of each lane; the lower half is without meaning.
template <bool kOrdinary>
QLORA_INLINE __m256i upper_bf16(__m256 a) {
  if constexpr (!kOrdinary) return _mm256_castps_si256(nearest_bf16(a));
  const __m256i u = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
}

// kOrdinary: every level * scale is zero or a normal number.
template <bool kOrdinary>
QLORA_INLINE HalfTable half_table(const HalfLevels& levels, float scale) {
  const __m256 s = _mm256_set1_ps(scale);
  const __m256i a = upper_bf16<kOrdinary>(_mm256_mul_ps(levels.a, s));
  const __m256i b = upper_bf16<kOrdinary>(_mm256_mul_ps(levels.b, s));
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa), order);
  return {_mm256_permute4x64_epi64(bytes, 0x88), _mm256_permute4x64_epi64(bytes, 0xdd)};
}

// Past the caches when kStream. REQUIRES: then `out` is aligned to a vector.
template <bool kStream>
QLORA_INLINE void write(void* out, IVec a) {
  if constexpr (kStream)
    _mm256_stream_si256(static_cast<__m256i*>(out), a.v);
  else
    istore(out, a);
}

// 2 * kLanes numbers as bf16.
template <bool kStream, bool kOrdinary>
QLORA_INLINE void write_bf16(uint16_t* out, Vec a, Vec b) {
  const __m256i words = _mm256_packus_epi32(_mm256_srli_epi32(upper_bf16<kOrdinary>(a.v), 16),
                                            _mm256_srli_epi32(upper_bf16<kOrdinary>(b.v), 16));
  write<kStream>(out, {_mm256_permute4x64_epi64(words, 0xd8)});
}

// One code a byte, of elements 0 to 7 and 16 to 23, and in the upper half 8 to 15 and 24 to 31.
template <bool kStream>
QLORA_INLINE void put_halves(const HalfTable& t, __m256i codes, uint16_t* out) {
  const __m256i low = _mm256_shuffle_epi8(t.low, codes), high = _mm256_shuffle_epi8(t.high, codes);
  write<kStream>(out, {_mm256_unpacklo_epi8(low, high)});
  write<kStream>(out + 16, {_mm256_unpackhi_epi8(low, high)});
}

// out[0, 64) = bf16(level * scale) of the codes at p; one table for the first 32, one for the last.
template <bool kStream>
QLORA_INLINE void decode_halves(const HalfLevels&, const HalfTable& first, const HalfTable& last,
                                const uint8_t* p, uint16_t* out) {
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
                                                    _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i even = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
  const __m256i odd = _mm256_and_si256(bytes, nibble);
  put_halves<kStream>(first, _mm256_unpacklo_epi8(even, odd), out);
  put_halves<kStream>(last, _mm256_unpackhi_epi8(even, odd), out + 32);
}

// CodeSearch (kernels.h) in lookup form. Ranks of 32 numbers are found together, a byte each: vectors that
// are packed to bytes come apart again by levels_of_bytes() in the same order.
QLORA_INLINE __m256i twice(const uint8_t* p) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
struct Search {
  __m256i base[2];  // of the cells from 0 on; of those below
  ByteTables boundaries;
  __m256i codes;
  explicit Search(const CodeSearch& s) : boundaries(s.boundaries) {
    base[0] = twice(s.base);
    base[1] = twice(s.base + 16);
    codes = twice(s.codes);
  }
};

QLORA_INLINE __m256i pack_bytes(const IVec (&v)[4]) {
  return _mm256_packs_epi16(_mm256_packs_epi32(v[0].v, v[1].v), _mm256_packs_epi32(v[2].v, v[3].v));
}

// The codes of 32 numbers in [-1, 1], two of them a byte, the first in the high nibble.
QLORA_INLINE void encode_32(const Search& s, const Vec (&x)[4], uint8_t* out) {
  IVec cell[4], above[4];
  for (int i = 0; i < 4; ++i) cell[i] = floor_to_int(fma(x[i], set1(kCells), zero()));
  const __m256i cells = pack_bytes(cell);
  // A byte shuffle gives zero where the highest bit is set.
  const __m256i base =
      _mm256_or_si256(_mm256_shuffle_epi8(s.base[0], cells),
                      _mm256_shuffle_epi8(s.base[1], _mm256_xor_si256(cells, _mm256_set1_epi8(-128))));
  __m256i boundary[4];
  levels_of_bytes(s.boundaries, base, boundary);
  for (int i = 0; i < 4; ++i)
    above[i] = {_mm256_castps_si256((Vec{_mm256_castsi256_ps(boundary[i])} < x[i]).v)};
  const __m256i codes = _mm256_shuffle_epi8(s.codes, _mm256_sub_epi8(base, pack_bytes(above)));
  const __m256i pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi16(0x0110));
  // Lanes 0 to 3 of every vector lie in the lower half, 4 to 7 in the upper.
  const __m256i bytes = _mm256_packus_epi16(pairs, pairs);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   _mm_unpacklo_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}

// Four dwords of each of eight rows: v[j] lane i = dword j of row i.
QLORA_INLINE void load_four_words(const uint8_t* p, int64_t stride, IVec (&v)[4]) {
  __m256i words[4];
  rows_of_dwords(p, stride, words);
  for (int j = 0; j < 4; ++j) v[j] = {words[j]};
}
