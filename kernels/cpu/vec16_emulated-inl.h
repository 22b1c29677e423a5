// Sixteen lanes as pairs of AVX2 registers, with the same functions as vec16-inl.h. For tests alone: it runs
// the tile shapes, tails and sum orders of the AVX-512 build on machines without AVX-512. The including file
// has put vec8-inl.h into namespace half.

constexpr int kLanes = 16;
struct Vec {
  half::Vec a, b;
};
struct IVec {
  half::IVec a, b;
};
struct Mask {
  half::Mask a, b;
};

QLORA_INLINE Vec zero() {
  return {half::zero(), half::zero()};
}
QLORA_INLINE Vec set1(float x) {
  return {half::set1(x), half::set1(x)};
}
QLORA_INLINE Vec load(const float* p) {
  return {half::load(p), half::load(p + 8)};
}
QLORA_INLINE void store(float* p, Vec v) {
  half::store(p, v.a);
  half::store(p + 8, v.b);
}

QLORA_INLINE int64_t low_lanes(int64_t n) {
  return n < 8 ? n : 8;
}
QLORA_INLINE int64_t high_lanes(int64_t n) {
  return n < 8 ? 0 : n - 8;
}
QLORA_INLINE Vec load_n(const float* p, int64_t n) {
  return {half::load_n(p, low_lanes(n)), half::load_n(p + 8, high_lanes(n))};
}
QLORA_INLINE void store_n(float* p, Vec v, int64_t n) {
  half::store_n(p, v.a, low_lanes(n));
  half::store_n(p + 8, v.b, high_lanes(n));
}
QLORA_INLINE Vec first_n(Vec v, int64_t n, Vec rest) {
  return {half::first_n(v.a, low_lanes(n), rest.a), half::first_n(v.b, high_lanes(n), rest.b)};
}

QLORA_INLINE Vec operator+(Vec x, Vec y) {
  return {x.a + y.a, x.b + y.b};
}
QLORA_INLINE Vec operator-(Vec x, Vec y) {
  return {x.a - y.a, x.b - y.b};
}
QLORA_INLINE Vec operator*(Vec x, Vec y) {
  return {x.a * y.a, x.b * y.b};
}
QLORA_INLINE Vec operator/(Vec x, Vec y) {
  return {x.a / y.a, x.b / y.b};
}
QLORA_INLINE Vec fma(Vec x, Vec y, Vec z) {
  return {half::fma(x.a, y.a, z.a), half::fma(x.b, y.b, z.b)};
}
QLORA_INLINE Vec fnma(Vec x, Vec y, Vec z) {
  return {half::fnma(x.a, y.a, z.a), half::fnma(x.b, y.b, z.b)};
}
QLORA_INLINE Vec min(Vec x, Vec y) {
  return {half::min(x.a, y.a), half::min(x.b, y.b)};
}
QLORA_INLINE Vec max(Vec x, Vec y) {
  return {half::max(x.a, y.a), half::max(x.b, y.b)};
}
QLORA_INLINE Vec sqrt(Vec x) {
  return {half::sqrt(x.a), half::sqrt(x.b)};
}
QLORA_INLINE Vec round(Vec x) {
  return {half::round(x.a), half::round(x.b)};
}
QLORA_INLINE Mask operator<(Vec x, Vec y) {
  return {x.a < y.a, x.b < y.b};
}
QLORA_INLINE Vec select(Mask m, Vec yes, Vec no) {
  return {half::select(m.a, yes.a, no.a), half::select(m.b, yes.b, no.b)};
}

QLORA_INLINE IVec iset1(int32_t x) {
  return {half::iset1(x), half::iset1(x)};
}
QLORA_INLINE IVec lane_numbers() {
  return {half::lane_numbers(), half::lane_numbers() + half::iset1(8)};
}
QLORA_INLINE IVec iload(const void* p) {
  return {half::iload(p), half::iload(static_cast<const char*>(p) + 32)};
}
QLORA_INLINE void istore(void* p, IVec x) {
  half::istore(p, x.a);
  half::istore(static_cast<char*>(p) + 32, x.b);
}
QLORA_INLINE IVec operator+(IVec x, IVec y) {
  return {x.a + y.a, x.b + y.b};
}
QLORA_INLINE IVec operator-(IVec x, IVec y) {
  return {x.a - y.a, x.b - y.b};
}
QLORA_INLINE IVec operator^(IVec x, IVec y) {
  return {x.a ^ y.a, x.b ^ y.b};
}
QLORA_INLINE IVec operator&(IVec x, IVec y) {
  return {x.a & y.a, x.b & y.b};
}
QLORA_INLINE IVec max(IVec x, IVec y) {
  return {half::max(x.a, y.a), half::max(x.b, y.b)};
}
QLORA_INLINE IVec increment(IVec x, Mask m) {
  return {half::increment(x.a, m.a), half::increment(x.b, m.b)};
}
template <int kBits>
QLORA_INLINE IVec shift_right(IVec x) {
  return {half::shift_right<kBits>(x.a), half::shift_right<kBits>(x.b)};
}
template <int kBits>
QLORA_INLINE IVec shift_right_signed(IVec x) {
  return {half::shift_right_signed<kBits>(x.a), half::shift_right_signed<kBits>(x.b)};
}
template <int kBits>
QLORA_INLINE IVec shift_left(IVec x) {
  return {half::shift_left<kBits>(x.a), half::shift_left<kBits>(x.b)};
}
QLORA_INLINE IVec to_int(Vec x) {
  return {half::to_int(x.a), half::to_int(x.b)};
}
QLORA_INLINE IVec floor_to_int(Vec x) {
  return {half::floor_to_int(x.a), half::floor_to_int(x.b)};
}
QLORA_INLINE Vec to_float(IVec x) {
  return {half::to_float(x.a), half::to_float(x.b)};
}
QLORA_INLINE IVec load_bytes(const uint8_t* p) {
  return {half::load_bytes(p), half::load_bytes(p + 8)};
}
QLORA_INLINE void store_bytes(uint8_t* p, IVec x) {
  half::store_bytes(p, x.a);
  half::store_bytes(p + 8, x.b);
}
QLORA_INLINE Vec as_float(IVec x) {
  return {half::as_float(x.a), half::as_float(x.b)};
}
QLORA_INLINE IVec as_int(Vec x) {
  return {half::as_int(x.a), half::as_int(x.b)};
}
QLORA_INLINE Vec round_bf16(Vec x) {
  return {half::round_bf16(x.a), half::round_bf16(x.b)};
}
QLORA_INLINE Vec operand_bf16(Vec x) {
  return {half::operand_bf16(x.a), half::operand_bf16(x.b)};
}

// Words of two bf16, as vec16-inl.h has them.
QLORA_INLINE IVec pair(Vec even, Vec odd) {
  return as_int(operand_bf16(odd)) ^ shift_right<16>(as_int(operand_bf16(even)));
}
QLORA_INLINE IVec narrow(Vec first, Vec second) {
  alignas(64) float values[32], even[16], odd[16];
  store(values, first);
  store(values + 16, second);
  for (int i = 0; i < 16; ++i) {
    even[i] = values[2 * i];
    odd[i] = values[2 * i + 1];
  }
  return pair(load(even), load(odd));
}
QLORA_INLINE IVec load_halves(const uint16_t* p, int64_t n) {
  alignas(64) uint16_t values[32] = {};
  __builtin_memcpy(values, p, static_cast<size_t>(n < 32 ? n : 32) * 2);
  return iload(values);
}
QLORA_INLINE IVec load_wide_halves(const uint16_t* p, int64_t n) {
  alignas(64) uint32_t values[16] = {};
  for (int64_t i = 0; i < (n < 16 ? n : 16); ++i) values[i] = p[i];
  return iload(values);
}
QLORA_INLINE void transpose16(IVec (&r)[16]) {
  alignas(64) uint32_t in[16][16], out[16][16];
  for (int i = 0; i < 16; ++i) istore(in[i], r[i]);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) out[j][i] = in[i][j];
  for (int i = 0; i < 16; ++i) r[i] = iload(out[i]);
}

QLORA_INLINE void pairs_of_eight(const float* p, int64_t ld, IVec (&r)[4]) {
  for (int j = 0; j < 4; ++j) {
    alignas(64) float even[16], odd[16];
    for (int i = 0; i < 16; ++i) {
      even[i] = p[i * ld + 2 * j];
      odd[i] = p[i * ld + 2 * j + 1];
    }
    r[j] = pair(load(even), load(odd));
  }
}

// vdpbf16ps in its own order. REQUIRES: denormals are flushed.
QLORA_INLINE Vec dot_pairs(Vec x, Vec w, Vec sum) {
  const IVec xi = as_int(x), wi = as_int(w);
  sum =
      fma(as_float(shift_left<16>(shift_right<16>(xi))), as_float(shift_left<16>(shift_right<16>(wi))), sum);
  return fma(as_float(shift_left<16>(xi)), as_float(shift_left<16>(wi)), sum);
}

QLORA_INLINE IVec multiply_even(IVec x, IVec y) {
  return {half::multiply_even(x.a, y.a), half::multiply_even(x.b, y.b)};
}
QLORA_INLINE IVec odd_words(IVec x) {
  return {half::odd_words(x.a), half::odd_words(x.b)};
}
QLORA_INLINE IVec join_even(IVec x, IVec y) {
  return {half::join_even(x.a, y.a), half::join_even(x.b, y.b)};
}
QLORA_INLINE IVec even_pairs(IVec x, IVec y) {
  return {half::even_pairs(x.a, y.a), half::even_pairs(x.b, y.b)};
}
QLORA_INLINE IVec odd_pairs(IVec x, IVec y) {
  return {half::odd_pairs(x.a, y.a), half::odd_pairs(x.b, y.b)};
}
QLORA_INLINE uint32_t less_bits(IVec x, IVec y) {
  return half::less_bits(x.a, y.a) | half::less_bits(x.b, y.b) << 8;
}
QLORA_INLINE Vec keep(Vec x, uint32_t bits) {
  return {half::keep(x.a, bits & 255), half::keep(x.b, bits >> 8)};
}

QLORA_INLINE float sum(Vec x) {
  return half::sum(x.a + x.b);
}
QLORA_INLINE float largest(Vec x) {
  return half::largest(half::max(x.a, x.b));
}

QLORA_INLINE int32_t largest(IVec x) {
  return half::largest(half::max(x.a, x.b));
}

using Table16 = half::Table16;
QLORA_INLINE Table16 load_table(const float* p) {
  return half::load_table(p);
}
QLORA_INLINE Vec lookup(const Table16& t, IVec i) {
  return {half::lookup(t, i.a), half::lookup(t, i.b)};
}
QLORA_INLINE IVec spread_codes(const uint8_t* p) {
  return {half::spread_codes(p), half::spread_codes(p + 4)};
}
QLORA_INLINE IVec load_words(const uint8_t* p, int64_t stride) {
  return {half::load_words(p, stride), half::load_words(p + 8 * stride, stride)};
}

QLORA_INLINE Vec load_some(const float* p, int64_t n) {
  return n == kLanes ? load(p) : load_n(p, n);
}
QLORA_INLINE Vec load_some(const uint16_t* p, int64_t n) {
  const int64_t low = low_lanes(n), high = high_lanes(n);
  return {half::load_some(p, low), high > 0 ? half::load_some(p + 8, high) : half::zero()};
}
QLORA_INLINE void store_operands(uint16_t* p, Vec a, int64_t n) {
  half::store_operands(p, a.a, low_lanes(n));
  if (high_lanes(n) > 0) half::store_operands(p + 8, a.b, high_lanes(n));
}
QLORA_INLINE void store_some(float* p, Vec a, int64_t n) {
  if (n == kLanes) {
    store(p, a);
  } else {
    store_n(p, a, n);
  }
}

// codes16-inl.h, as eight lanes do it.
using half::decode_halves;
using half::half_table;
using half::HalfLevels;
using half::HalfTable;
using half::load_half_levels;
template <bool kStream>
QLORA_INLINE void write(void* out, IVec x) {
  half::write<kStream>(out, x.a);
  half::write<kStream>(static_cast<char*>(out) + 32, x.b);
}
template <bool kStream, bool kOrdinary>
QLORA_INLINE void write_bf16(uint16_t* out, Vec x, Vec y) {
  half::write_bf16<kStream, kOrdinary>(out, x.a, x.b);
  half::write_bf16<kStream, kOrdinary>(out + 16, y.a, y.b);
}
using half::Search;
QLORA_INLINE void encode_32(const Search& s, const Vec (&x)[2], uint8_t* out) {
  half::encode_32(s, {x[0].a, x[0].b, x[1].a, x[1].b}, out);
}
QLORA_INLINE void load_four_words(const uint8_t* p, int64_t stride, IVec (&v)[4]) {
  for (int j = 0; j < 4; ++j) v[j] = load_words(p + 4 * j, stride);
}
