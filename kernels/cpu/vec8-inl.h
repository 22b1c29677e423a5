// Eight lanes of f32: AVX2 and FMA. Every product that is fused says so (fma); nothing else is.

constexpr int kLanes = 8;
struct Vec {
  __m256 v;
};
struct IVec {
  __m256i v;
};
struct Mask {
  __m256 v;
};

QLORA_INLINE Vec zero() {
  return {_mm256_setzero_ps()};
}
QLORA_INLINE Vec set1(float x) {
  return {_mm256_set1_ps(x)};
}
QLORA_INLINE Vec load(const float* p) {
  return {_mm256_loadu_ps(p)};
}
QLORA_INLINE void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.v);
}

// The first n lanes, 0 <= n <= kLanes; the others read as zero and are not written.
QLORA_INLINE __m256i lanes_below(int64_t n) {
  alignas(64) static const int32_t table[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table + 8 - n));
}
QLORA_INLINE Vec load_n(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, lanes_below(n))};
}
QLORA_INLINE void store_n(float* p, Vec a, int64_t n) {
  _mm256_maskstore_ps(p, lanes_below(n), a.v);
}
QLORA_INLINE Vec first_n(Vec a, int64_t n, Vec rest) {
  return {_mm256_blendv_ps(rest.v, a.v, _mm256_castsi256_ps(lanes_below(n)))};
}

QLORA_INLINE Vec operator+(Vec a, Vec b) {
  return {_mm256_add_ps(a.v, b.v)};
}
QLORA_INLINE Vec operator-(Vec a, Vec b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
QLORA_INLINE Vec operator*(Vec a, Vec b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
QLORA_INLINE Vec operator/(Vec a, Vec b) {
  return {_mm256_div_ps(a.v, b.v)};
}
QLORA_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}  // a b + c
QLORA_INLINE Vec fnma(Vec a, Vec b, Vec c) {
  return {_mm256_fnmadd_ps(a.v, b.v, c.v)};
}  // c - a b
QLORA_INLINE Vec min(Vec a, Vec b) {
  return {_mm256_min_ps(a.v, b.v)};
}  // b when either is NaN
QLORA_INLINE Vec max(Vec a, Vec b) {
  return {_mm256_max_ps(a.v, b.v)};
}
QLORA_INLINE Vec sqrt(Vec a) {
  return {_mm256_sqrt_ps(a.v)};
}
QLORA_INLINE Vec round(Vec a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
QLORA_INLINE Mask operator<(Vec a, Vec b) {
  return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)};
}
QLORA_INLINE Vec select(Mask m, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.v, yes.v, m.v)};
}

QLORA_INLINE IVec iset1(int32_t x) {
  return {_mm256_set1_epi32(x)};
}
QLORA_INLINE IVec lane_numbers() {
  return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)};
}
QLORA_INLINE IVec iload(const void* p) {
  return {_mm256_loadu_si256(static_cast<const __m256i*>(p))};
}
QLORA_INLINE void istore(void* p, IVec a) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), a.v);
}
QLORA_INLINE IVec operator+(IVec a, IVec b) {
  return {_mm256_add_epi32(a.v, b.v)};
}
QLORA_INLINE IVec operator-(IVec a, IVec b) {
  return {_mm256_sub_epi32(a.v, b.v)};
}
QLORA_INLINE IVec operator^(IVec a, IVec b) {
  return {_mm256_xor_si256(a.v, b.v)};
}
QLORA_INLINE IVec operator&(IVec a, IVec b) {
  return {_mm256_and_si256(a.v, b.v)};
}
QLORA_INLINE IVec max(IVec a, IVec b) {
  return {_mm256_max_epi32(a.v, b.v)};
}
// a + 1 in the lanes of m.
QLORA_INLINE IVec increment(IVec a, Mask m) {
  return {_mm256_sub_epi32(a.v, _mm256_castps_si256(m.v))};
}
template <int kBits>
QLORA_INLINE IVec shift_right(IVec a) {
  return {_mm256_srli_epi32(a.v, kBits)};
}
template <int kBits>
QLORA_INLINE IVec shift_right_signed(IVec a) {
  return {_mm256_srai_epi32(a.v, kBits)};
}
template <int kBits>
QLORA_INLINE IVec shift_left(IVec a) {
  return {_mm256_slli_epi32(a.v, kBits)};
}
QLORA_INLINE IVec to_int(Vec a) {
  return {_mm256_cvtps_epi32(a.v)};
}  // to nearest even
// Of a's floor. REQUIRES: it fits.
QLORA_INLINE IVec floor_to_int(Vec a) {
  return {_mm256_cvttps_epi32(_mm256_floor_ps(a.v))};
}
QLORA_INLINE Vec to_float(IVec a) {
  return {_mm256_cvtepi32_ps(a.v)};
}
// kLanes bytes as signed numbers, and the lowest byte of every lane.
QLORA_INLINE IVec load_bytes(const uint8_t* p) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
QLORA_INLINE void store_bytes(uint8_t* p, IVec a) {
  const __m256i lowest = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                          -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i bytes = _mm256_shuffle_epi8(a.v, lowest);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p),
                   _mm_or_si128(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}
QLORA_INLINE Vec as_float(IVec a) {
  return {_mm256_castsi256_ps(a.v)};
}
QLORA_INLINE IVec as_int(Vec a) {
  return {_mm256_castps_si256(a.v)};
}
// bf16-inl.h.
QLORA_INLINE Vec round_bf16(Vec a) {
  return {nearest_bf16(a.v)};
}
// As an operand of a product: denormals count as zeros before they are rounded.
QLORA_INLINE Vec operand_bf16(Vec a) {
  return {operand_nearest_bf16(a.v)};
}

// Words of 32 bits in pairs. The products of the even words, as the pairs that they fill.
QLORA_INLINE IVec multiply_even(IVec a, IVec b) {
  return {_mm256_mul_epu32(a.v, b.v)};
}
// The odd words, where the even ones stood.
QLORA_INLINE IVec odd_words(IVec a) {
  return {_mm256_srli_epi64(a.v, 32)};
}
// The even words of both, in turn.
QLORA_INLINE IVec join_even(IVec a, IVec b) {
  return {_mm256_blend_epi32(a.v, _mm256_slli_epi64(b.v, 32), 0xaa)};
}
// Even and odd pairs of both, in turn.
QLORA_INLINE IVec even_pairs(IVec a, IVec b) {
  return {_mm256_unpacklo_epi64(a.v, b.v)};
}
QLORA_INLINE IVec odd_pairs(IVec a, IVec b) {
  return {_mm256_unpackhi_epi64(a.v, b.v)};
}
// A bit for every lane, set where a < b.
QLORA_INLINE uint32_t less_bits(IVec a, IVec b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.v, a.v))));
}
// The lanes whose bit is set; zeros elsewhere.
QLORA_INLINE Vec keep(Vec a, uint32_t bits) {
  return {keep8(a.v, bits)};
}

// Halves are added first, so that the order is that of a balanced tree.
QLORA_INLINE float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
QLORA_INLINE float largest(Vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

QLORA_INLINE int32_t largest(IVec a) {
  __m128i s = _mm_max_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// A table of 16 values; lookup uses the low four bits of each lane.
struct Table16 {
  __m256 low, high;
};
QLORA_INLINE Table16 load_table(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
QLORA_INLINE Vec lookup(const Table16& t, IVec i) {
  __m256 high_bit = _mm256_castsi256_ps(_mm256_slli_epi32(i.v, 28));
  return {_mm256_blendv_ps(_mm256_permutevar8x32_ps(t.low, i.v), _mm256_permutevar8x32_ps(t.high, i.v),
                           high_bit)};
}
// kLanes 4-bit codes from kLanes / 2 bytes, the first in the high nibble: each lane's low four bits.
QLORA_INLINE IVec spread_codes(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return {_mm256_srlv_epi32(_mm256_set1_epi32(word), _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24))};
}
// Lane i = the 32-bit word at p + i * stride bytes.
QLORA_INLINE IVec load_words(const uint8_t* p, int64_t stride) {
  int32_t w[8];
  for (int i = 0; i < 8; ++i) __builtin_memcpy(&w[i], p + i * stride, 4);
  return {_mm256_setr_epi32(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7])};
}

// The first n lanes; a plain access where n is known to be all of them.
QLORA_INLINE Vec load_some(const float* p, int64_t n) {
  return n == kLanes ? load(p) : load_n(p, n);
}
// The first n stored bf16, as they are.
QLORA_INLINE Vec load_some(const uint16_t* p, int64_t n) {
  uint16_t room[kLanes] = {};
  if (n < kLanes) p = static_cast<const uint16_t*>(__builtin_memcpy(room, p, static_cast<size_t>(n) * 2));
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
}
// The first n lanes as operands of a product, stored as bf16.
QLORA_INLINE void store_operands(uint16_t* p, Vec a, int64_t n) {
  const __m256i words = _mm256_srli_epi32(_mm256_castps_si256(operand_bf16(a).v), 16);
  const __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
  uint16_t room[kLanes];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(n < kLanes ? room : p), _mm256_castsi256_si128(both));
  if (n < kLanes) __builtin_memcpy(p, room, static_cast<size_t>(n) * 2);
}
QLORA_INLINE void store_some(float* p, Vec a, int64_t n) {
  if (n == kLanes) {
    store(p, a);
  } else {
    store_n(p, a, n);
  }
}
