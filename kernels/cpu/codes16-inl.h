// Sixty-four 4-bit codes at a time, with AVX-512. The same functions as codes8-inl.h.

// The 16 levels of a format, and what stands where when codes are spread and looked up.
struct HalfLevels {
  __m512 levels;
  __m512i upper;        // the upper half of every lane, twice
  __m512i first, last;  // every word of the first and the last 32 codes, four times
  __m512i shifts;       // that bring a word's four codes down
  __m512i places;       // where a quarter of a half finds its four codes among sixteen (VBMI)
};
QLORA_INLINE HalfLevels load_half_levels(const float* p) {
  alignas(64) uint16_t upper[32], first[32], last[32], shifts[32], places[32];
  constexpr uint16_t kShifts[4] = {4, 0, 12, 8};
  for (int i = 0; i < 32; ++i) {
    upper[i] = static_cast<uint16_t>(2 * (i % 16) + 1);
    first[i] = static_cast<uint16_t>(i / 4);
    last[i] = static_cast<uint16_t>(8 + i / 4);
    shifts[i] = kShifts[i % 4];
    places[i] = static_cast<uint16_t>(i / 4 % 4 * 16 + kShifts[i % 4]);
  }
  return {_mm512_loadu_ps(p),      _mm512_load_si512(upper),  _mm512_load_si512(first),
          _mm512_load_si512(last), _mm512_load_si512(shifts), _mm512_load_si512(places)};
}

// bf16(level * scale) for every code, twice: lookups use five bits, the fifth of which is another code's.
struct HalfTable {
  __m512i words;
};

// Rounded to bf16 in the upper half of each lane; the lower half is without meaning.
template <bool kOrdinary>
QLORA_INLINE __m512i upper_bf16(__m512 a) {
  if constexpr (!kOrdinary) return _mm512_castps_si512(round_bf16({a}).v);
  const __m512i u = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  return _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
}

template <bool kOrdinary>
QLORA_INLINE HalfTable half_table(const HalfLevels& levels, float scale) {
  const __m512 products = _mm512_mul_ps(levels.levels, _mm512_set1_ps(scale));
#if QLORA_PAIRS
  if constexpr (kOrdinary) return {narrow({products}, {products}).v};
#endif
  return {_mm512_permutexvar_epi16(levels.upper, upper_bf16<kOrdinary>(products))};
}

template <bool kStream>
QLORA_INLINE void write(void* out, IVec a) {
  if constexpr (kStream)
    _mm512_stream_si512(static_cast<__m512i*>(out), a.v);
  else
    istore(out, a);
}

// 2 * kLanes numbers as bf16.
template <bool kStream, bool kOrdinary>
QLORA_INLINE void write_bf16(uint16_t* out, Vec a, Vec b) {
#if QLORA_PAIRS
  if constexpr (kOrdinary) return write<kStream>(out, narrow(a, b));
#endif
  alignas(64) static const uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                  23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                  45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  write<kStream>(out, {_mm512_permutex2var_epi16(upper_bf16<kOrdinary>(a.v), _mm512_load_si512(kUpper),
                                                 upper_bf16<kOrdinary>(b.v))});
}

template <bool kStream>
QLORA_INLINE void decode_halves(const HalfLevels& levels, const HalfTable& first, const HalfTable& last,
                                const uint8_t* p, uint16_t* out) {
#if QLORA_PAIRS
  const auto sixteen = [&](int i) {
    int64_t codes;
    __builtin_memcpy(&codes, p + 8 * i, 8);
    return codes;
  };
  const auto spread = [&](int i) {
    const __m512i both = _mm512_mask_set1_epi64(_mm512_set1_epi64(sixteen(i)), 0xf0, sixteen(i + 1));
    return _mm512_multishift_epi64_epi8(levels.places, both);
  };
  const __m512i a = spread(0), b = spread(2);
#else
  const __m512i words = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  const __m512i a = _mm512_srlv_epi16(_mm512_permutexvar_epi16(levels.first, words), levels.shifts);
  const __m512i b = _mm512_srlv_epi16(_mm512_permutexvar_epi16(levels.last, words), levels.shifts);
#endif
  write<kStream>(out, {_mm512_permutexvar_epi16(a, first.words)});
  write<kStream>(out + 32, {_mm512_permutexvar_epi16(b, last.words)});
}

struct Search {
  __m512 boundary[2];  // of the cells from 0 on; of those below
  __m512i base[2];
  __m128i codes;
  explicit Search(const CodeSearch& s) {
    alignas(64) float boundaries[32];
    alignas(64) int32_t bases[32];
    for (int i = 0; i < 32; ++i) {
      bases[i] = s.base[i];
      boundaries[i] = s.boundaries[s.base[i]];
    }
    for (int i = 0; i < 2; ++i) {
      boundary[i] = _mm512_load_ps(boundaries + 16 * i);
      base[i] = _mm512_load_si512(bases + 16 * i);
    }
    codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(s.codes));
  }
};

QLORA_INLINE void encode_32(const Search& s, const Vec (&x)[2], uint8_t* out) {
  __m128i pairs[2];
  for (int i = 0; i < 2; ++i) {
    const __m512i cells = floor_to_int(fma(x[i], set1(kCells), zero())).v;  // lookups use five bits
    const Vec boundary = {_mm512_permutex2var_ps(s.boundary[0], cells, s.boundary[1])};
    const IVec rank = increment({_mm512_permutex2var_epi32(s.base[0], cells, s.base[1])}, boundary < x[i]);
    const __m128i codes = _mm_shuffle_epi8(s.codes, _mm512_cvtepi32_epi8(rank.v));
    pairs[i] = _mm_maddubs_epi16(codes, _mm_set1_epi16(0x0110));
  }
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(pairs[0], pairs[1]));
}

// Row 4 q + r of the sixteen stands in quarter q of vector r; then words of four rows become columns of a
// quarter.
QLORA_INLINE void load_four_words(const uint8_t* p, int64_t stride, IVec (&v)[4]) {
  __m512i r[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const auto row = [&](int q) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + (4 * q + i) * stride));
    };
    r[i] = _mm512_castsi128_si512(row(0));
    r[i] = _mm512_inserti32x4(r[i], row(1), 1);
    r[i] = _mm512_inserti32x4(r[i], row(2), 2);
    r[i] = _mm512_inserti32x4(r[i], row(3), 3);
  }
  const __m512i a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpackhi_epi32(r[0], r[1]);
  const __m512i c = _mm512_unpacklo_epi32(r[2], r[3]), d = _mm512_unpackhi_epi32(r[2], r[3]);
  v[0] = {_mm512_unpacklo_epi64(a, c)};
  v[1] = {_mm512_unpackhi_epi64(a, c)};
  v[2] = {_mm512_unpacklo_epi64(b, d)};
  v[3] = {_mm512_unpackhi_epi64(b, d)};
}
