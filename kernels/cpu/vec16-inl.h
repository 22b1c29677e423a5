// Sixteen lanes of f32: AVX-512 F, BW, DQ, VL. The same functions as vec8-inl.h.

constexpr int kLanes = 16;
struct Vec {
  __m512 v;
};
struct IVec {
  __m512i v;
};
struct Mask {
  __mmask16 v;
};

QLORA_INLINE Vec zero() {
  return {_mm512_setzero_ps()};
}
QLORA_INLINE Vec set1(float x) {
  return {_mm512_set1_ps(x)};
}
QLORA_INLINE Vec load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
QLORA_INLINE void store(float* p, Vec a) {
  _mm512_storeu_ps(p, a.v);
}

QLORA_INLINE __mmask16 lanes_below(int64_t n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
QLORA_INLINE Vec load_n(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(lanes_below(n), p)};
}
QLORA_INLINE void store_n(float* p, Vec a, int64_t n) {
  _mm512_mask_storeu_ps(p, lanes_below(n), a.v);
}
QLORA_INLINE Vec first_n(Vec a, int64_t n, Vec rest) {
  return {_mm512_mask_mov_ps(rest.v, lanes_below(n), a.v)};
}

QLORA_INLINE Vec operator+(Vec a, Vec b) {
  return {_mm512_add_ps(a.v, b.v)};
}
QLORA_INLINE Vec operator-(Vec a, Vec b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
QLORA_INLINE Vec operator*(Vec a, Vec b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
QLORA_INLINE Vec operator/(Vec a, Vec b) {
  return {_mm512_div_ps(a.v, b.v)};
}
QLORA_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
QLORA_INLINE Vec fnma(Vec a, Vec b, Vec c) {
  return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
}
QLORA_INLINE Vec min(Vec a, Vec b) {
  return {_mm512_min_ps(a.v, b.v)};
}
QLORA_INLINE Vec max(Vec a, Vec b) {
  return {_mm512_max_ps(a.v, b.v)};
}
QLORA_INLINE Vec sqrt(Vec a) {
  return {_mm512_sqrt_ps(a.v)};
}
QLORA_INLINE Vec round(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
QLORA_INLINE Mask operator<(Vec a, Vec b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)};
}
QLORA_INLINE Vec select(Mask m, Vec yes, Vec no) {
  return {_mm512_mask_mov_ps(no.v, m.v, yes.v)};
}

QLORA_INLINE IVec iset1(int32_t x) {
  return {_mm512_set1_epi32(x)};
}
QLORA_INLINE IVec lane_numbers() {
  return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
}
QLORA_INLINE IVec iload(const void* p) {
  return {_mm512_loadu_si512(p)};
}
QLORA_INLINE void istore(void* p, IVec a) {
  _mm512_storeu_si512(p, a.v);
}
QLORA_INLINE IVec operator+(IVec a, IVec b) {
  return {_mm512_add_epi32(a.v, b.v)};
}
QLORA_INLINE IVec operator-(IVec a, IVec b) {
  return {_mm512_sub_epi32(a.v, b.v)};
}
QLORA_INLINE IVec operator^(IVec a, IVec b) {
  return {_mm512_xor_si512(a.v, b.v)};
}
QLORA_INLINE IVec operator&(IVec a, IVec b) {
  return {_mm512_and_si512(a.v, b.v)};
}
QLORA_INLINE IVec max(IVec a, IVec b) {
  return {_mm512_max_epi32(a.v, b.v)};
}
QLORA_INLINE IVec increment(IVec a, Mask m) {
  return {_mm512_mask_add_epi32(a.v, m.v, a.v, _mm512_set1_epi32(1))};
}
template <int kBits>
QLORA_INLINE IVec shift_right(IVec a) {
  return {_mm512_srli_epi32(a.v, kBits)};
}
template <int kBits>
QLORA_INLINE IVec shift_right_signed(IVec a) {
  return {_mm512_srai_epi32(a.v, kBits)};
}
template <int kBits>
QLORA_INLINE IVec shift_left(IVec a) {
  return {_mm512_slli_epi32(a.v, kBits)};
}
QLORA_INLINE IVec to_int(Vec a) {
  return {_mm512_cvtps_epi32(a.v)};
}
QLORA_INLINE IVec floor_to_int(Vec a) {
  return {_mm512_cvt_roundps_epi32(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}
QLORA_INLINE Vec to_float(IVec a) {
  return {_mm512_cvtepi32_ps(a.v)};
}
QLORA_INLINE IVec load_bytes(const uint8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
QLORA_INLINE void store_bytes(uint8_t* p, IVec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
QLORA_INLINE Vec as_float(IVec a) {
  return {_mm512_castsi512_ps(a.v)};
}
QLORA_INLINE IVec as_int(Vec a) {
  return {_mm512_castps_si512(a.v)};
}
QLORA_INLINE Vec round_bf16(Vec a) {
  const __m512i u = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
  const __m512i kept = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), quiet);
  return {_mm512_castsi512_ps(_mm512_and_si512(kept, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))))};
}

// As an operand of a product: denormals count as zeros before they are rounded.
QLORA_INLINE Vec operand_bf16(Vec a) {
  const __m512i u = _mm512_castps_si512(a.v);
  const __mmask16 denormal = _mm512_testn_epi32_mask(u, _mm512_set1_epi32(0x7f800000));
  const __m512i sign = _mm512_set1_epi32(static_cast<int32_t>(0x80000000u));
  return {
      _mm512_castsi512_ps(_mm512_mask_and_epi32(_mm512_castps_si512(round_bf16(a).v), denormal, u, sign))};
}

#if QLORA_PAIRS
// The same rounding, of 32 values in a row: bf16, in their order, as words of two.
QLORA_INLINE IVec narrow(Vec first, Vec second) {
  return {(__m512i)_mm512_cvtne2ps_pbh(second.v, first.v)};
}
// Of two values for every word, the odd one above.
QLORA_INLINE IVec pair(Vec even, Vec odd) {
  alignas(64) static const uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                  21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                  11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return {_mm512_permutexvar_epi16(_mm512_load_si512(kOrder), narrow(even, odd).v)};
}
// The first n of 32 stored bf16 (n may be more), zeros behind them.
QLORA_INLINE IVec load_halves(const uint16_t* p, int64_t n) {
  if (n >= 32) return iload(p);
  return {_mm512_maskz_loadu_epi16((1u << n) - 1u, p)};
}
// The first n of sixteen, each in a word.
QLORA_INLINE IVec load_wide_halves(const uint16_t* p, int64_t n) {
  const __mmask16 lanes = static_cast<__mmask16>(n >= 16 ? 0xffffu : (1u << n) - 1u);
  return {_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p))};
}
// Rows of words become columns: r[j] lane i = r[i] lane j.
QLORA_INLINE void transpose16(IVec (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i].v, r[i + 1].v);
    t[i + 1] = _mm512_unpackhi_epi32(r[i].v, r[i + 1].v);
  }
  // Now r[i + j]: word j of each quarter, of rows i .. i + 3.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i].v = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1].v = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2].v = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3].v = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(r[j].v, r[4 + j].v, 0x88);
    const __m512i b = _mm512_shuffle_i32x4(r[j].v, r[4 + j].v, 0xdd);
    const __m512i c = _mm512_shuffle_i32x4(r[8 + j].v, r[12 + j].v, 0x88);
    const __m512i d = _mm512_shuffle_i32x4(r[8 + j].v, r[12 + j].v, 0xdd);
    t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
    t[4 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i].v = t[i];
}
// Rows of eight values, `ld` apart, become columns of pairs: r[j] lane i = values 2j and 2j + 1 of row i.
QLORA_INLINE void pairs_of_eight(const float* p, int64_t ld, IVec (&r)[4]) {
  const auto two = [&](int64_t i) {
    return Vec{_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(p + i * ld)),
                                  _mm256_loadu_ps(p + (i + 4) * ld), 1)};
  };
  __m512i rows[4];  // quarters: rows i, i + 4, i + 8, i + 12
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) rows[i] = narrow(two(i), two(i + 8)).v;
  const __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]), b = _mm512_unpackhi_epi32(rows[0], rows[1]);
  const __m512i c = _mm512_unpacklo_epi32(rows[2], rows[3]), d = _mm512_unpackhi_epi32(rows[2], rows[3]);
  r[0].v = _mm512_unpacklo_epi64(a, c);
  r[1].v = _mm512_unpackhi_epi64(a, c);
  r[2].v = _mm512_unpacklo_epi64(b, d);
  r[3].v = _mm512_unpackhi_epi64(b, d);
}
// sum + x[1] w[1] + x[0] w[0] in every lane, of the two bf16 values in it: the upper first, each product
// fused with its addition, denormals flushed.
QLORA_INLINE Vec dot_pairs(Vec x, Vec w, Vec sum) {
  return {_mm512_dpbf16_ps(sum.v, (__m512bh)x.v, (__m512bh)w.v)};
}
#endif

// See vec8-inl.h for these.
QLORA_INLINE IVec multiply_even(IVec a, IVec b) {
  return {_mm512_mul_epu32(a.v, b.v)};
}
QLORA_INLINE IVec odd_words(IVec a) {
  return {_mm512_srli_epi64(a.v, 32)};
}
QLORA_INLINE IVec join_even(IVec a, IVec b) {
  return {_mm512_mask_shuffle_epi32(a.v, 0xaaaa, b.v, _MM_PERM_CCAA)};
}
QLORA_INLINE IVec even_pairs(IVec a, IVec b) {
  return {_mm512_unpacklo_epi64(a.v, b.v)};
}
QLORA_INLINE IVec odd_pairs(IVec a, IVec b) {
  return {_mm512_unpackhi_epi64(a.v, b.v)};
}
QLORA_INLINE uint32_t less_bits(IVec a, IVec b) {
  return _mm512_cmplt_epi32_mask(a.v, b.v);
}
QLORA_INLINE Vec keep(Vec a, uint32_t bits) {
  return {_mm512_maskz_mov_ps(static_cast<__mmask16>(bits), a.v)};
}

QLORA_INLINE __m256 upper_half(Vec a) {
  return _mm512_extractf32x8_ps(a.v, 1);
}
QLORA_INLINE float sum(Vec a) {
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), upper_half(a));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
QLORA_INLINE float largest(Vec a) {
  __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a.v), upper_half(a));
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

QLORA_INLINE int32_t largest(IVec a) {
  const __m256i h = _mm256_max_epi32(_mm512_castsi512_si256(a.v), _mm512_extracti64x4_epi64(a.v, 1));
  __m128i s = _mm_max_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

struct Table16 {
  __m512 v;
};
QLORA_INLINE Table16 load_table(const float* p) {
  return {_mm512_loadu_ps(p)};
}
QLORA_INLINE Vec lookup(const Table16& t, IVec i) {
  return {_mm512_permutexvar_ps(i.v, t.v)};
}
QLORA_INLINE IVec spread_codes(const uint8_t* p) {
  int64_t words;
  __builtin_memcpy(&words, p, 8);
  const __m512i which = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m512i bits = _mm512_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24);
  return {_mm512_srlv_epi32(_mm512_permutexvar_epi32(which, _mm512_set1_epi64(words)), bits)};
}
QLORA_INLINE IVec load_words(const uint8_t* p, int64_t stride) {
  int32_t w[16];
  for (int i = 0; i < 16; ++i) __builtin_memcpy(&w[i], p + i * stride, 4);
  return {_mm512_setr_epi32(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12],
                            w[13], w[14], w[15])};
}

QLORA_INLINE Vec load_some(const float* p, int64_t n) {
  return n == kLanes ? load(p) : load_n(p, n);
}
// The first n stored bf16, as they are.
QLORA_INLINE Vec load_some(const uint16_t* p, int64_t n) {
  const __m256i bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1u), p);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
// The first n lanes as operands of a product, stored as bf16.
QLORA_INLINE void store_operands(uint16_t* p, Vec a, int64_t n) {
  const __mmask16 lanes = static_cast<__mmask16>((1u << n) - 1u);
#if QLORA_PAIRS
  _mm256_mask_storeu_epi16(p, lanes, (__m256i)_mm512_cvtneps_pbh(a.v));
#else
  _mm512_mask_cvtepi32_storeu_epi16(p, lanes, _mm512_srli_epi32(_mm512_castps_si512(operand_bf16(a).v), 16));
#endif
}
QLORA_INLINE void store_some(float* p, Vec a, int64_t n) {
  if (n == kLanes) {
    store(p, a);
  } else {
    store_n(p, a, n);
  }
}
