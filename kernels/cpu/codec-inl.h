// Whole matrices from codes, to f32 and bf16, and blocks of codes, or bf16, from f32 (products decode panels
// instead: decode-inl.h). Every element has the bits of the plain loops (kernels/quant,
// reference/matmul.cpp).

// ---- from codes

constexpr int64_t kChunkElements = 65536;            // whose scales are expanded together; a multiple of 64
constexpr int64_t kStreamBytes = int64_t{32} << 20;  // results that no cache holds

// Segments of 64 elements are decoded from 32 bytes or, of 8-bit codes, 64; their halves may have scales of
// their own. To f32: levels are looked up and scaled.
struct ToFloat {
  static constexpr int kBits = 4;
  ByteTables bytes;
  Table16 table;
  explicit ToFloat(const float* levels) : bytes(levels), table(load_table(levels)) {}
};
template <bool kStream, bool kOneScale>
QLORA_INLINE void decode_segment(const ToFloat& to, const uint8_t* p, float first, float last, float* out) {
  if constexpr (kLanes == 8) {
    const __m256i order =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    // Even words below, odd ones above: then the halves of a vector come from the halves of the bytes.
    const __m256i words = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(codes, order), 0xd8);
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i even = _mm256_and_si256(_mm256_srli_epi16(words, 4), nibble);
    const __m256i odd = _mm256_and_si256(words, nibble);
    for (int half = 0; half < 2; ++half) {
      const __m256 scale = _mm256_set1_ps(half == 0 ? first : last);
      __m256i v[4];
      levels_of_bytes(to.bytes, half == 0 ? _mm256_unpacklo_epi8(even, odd) : _mm256_unpackhi_epi8(even, odd),
                      v);
      for (int i = 0; i < 4; ++i) {
        const __m256 values = _mm256_mul_ps(_mm256_castsi256_ps(v[i]), scale);
        float* to_here = out + half * 32 + i * 8;
        kStream ? _mm256_stream_ps(to_here, values) : _mm256_storeu_ps(to_here, values);
      }
    }
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < 64; i += kLanes)
      write<kStream>(out + i,
                     as_int(lookup(to.table, spread_codes(p + i / 2)) * set1(i < 32 ? first : last)));
  }
}

// To bf16: the scaled levels are rounded once per block, and looked up. kOrdinary: as all_ordinary().
template <bool kOrdinary>
struct ToBf16 {
  static constexpr int kBits = 4;
  HalfLevels levels;
  explicit ToBf16(const float* p) : levels(load_half_levels(p)) {}
};
template <bool kStream, bool kOneScale, bool kOrdinary>
QLORA_INLINE void decode_segment(const ToBf16<kOrdinary>& to, const uint8_t* p, float first, float last,
                                 uint16_t* out) {
  const HalfTable table = half_table<kOrdinary>(to.levels, first);
  if constexpr (kOneScale)
    decode_halves<kStream>(to.levels, table, table, p, out);
  else
    decode_halves<kStream>(to.levels, table, half_table<kOrdinary>(to.levels, last), p, out);
}

// Of 8-bit codes levels are computed.
struct BytesToFloat : Levels8 {
  using Levels8::Levels8;
};
template <bool kStream, bool kOneScale>
QLORA_INLINE void decode_segment(const BytesToFloat& to, const uint8_t* p, float first, float last,
                                 float* out) {
#pragma GCC unroll 8
  for (int i = 0; i < 64; i += kLanes)
    write<kStream>(out + i, as_int(levels_in_row(to, p, i) * set1(i < 32 ? first : last)));
}
template <bool kOrdinary>
struct BytesToBf16 : Levels8 {
  using Levels8::Levels8;
};
template <bool kStream, bool kOneScale, bool kOrdinary>
QLORA_INLINE void decode_segment(const BytesToBf16<kOrdinary>& to, const uint8_t* p, float first, float last,
                                 uint16_t* out) {
#pragma GCC unroll 4
  for (int i = 0; i < 64; i += 2 * kLanes) {
    const Vec scale = set1(i < 32 ? first : last);
    write_bf16<kStream, kOrdinary>(out + i, levels_in_row(to, p, i) * scale,
                                   levels_in_row(to, p, i + kLanes) * scale);
  }
}

QLORA_INLINE void put_one(float* out, float value) {
  *out = value;
}
QLORA_INLINE void put_one(uint16_t* out, float value) {
  float nearest[8];
  _mm256_storeu_ps(nearest, nearest_bf16(_mm256_set1_ps(value)));
  uint32_t bits;
  __builtin_memcpy(&bits, nearest, 4);
  *out = static_cast<uint16_t>(bits >> 16);
}

template <bool kStream, bool kOneScale, class To, class Out>
static void decode_segments(const To& to, const Codes& w, int64_t begin, int64_t end, Out* out) {
  const BlockOf block_of(w.block);
  for (int64_t e = begin; e < end; e += 64) {
    const float first = w.absmax[block_of(e) - w.first_block];
    const float last = kOneScale ? first : w.absmax[block_of(e + 32) - w.first_block];
    decode_segment<kStream, kOneScale>(to, w.data + e * To::kBits / 8, first, last, out + e);
  }
}

// Elements [begin, end) of a chunk. REQUIRES: scales that are f32.
template <class To, class Out>
static void decode_chunk(const Codes& w, int64_t begin, int64_t end, bool stream, Out* out) {
  int64_t e = begin;
  if (w.block % 32 == 0) {
    const To to(w.levels);
    e = begin + (end - begin) / 64 * 64;
    if (w.block % 64 != 0)
      decode_segments<false, false>(to, w, begin, e, out);
    else if (stream)
      decode_segments<true, true>(to, w, begin, e, out);
    else
      decode_segments<false, true>(to, w, begin, e, out);
  }
  for (; e < end; ++e) put_one(out + e, decode_one(w, e));
}

// Whether every product of a level and a scale is zero or a normal number: no level but zero is below 2^-20.
static bool all_ordinary(const float* p, int64_t n) {
  constexpr uint32_t kSmallest = 0x0d800000, kInfinity = 0x7f800000;  // 2^-100
  uint32_t others = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, p + i, 4);
    bits &= 0x7fffffff;
    others |=
        static_cast<uint32_t>(bits != 0) & static_cast<uint32_t>(bits - kSmallest >= kInfinity - kSmallest);
  }
  return others == 0;
}

QLORA_INLINE void decode_chunk(const Codes& w, int64_t begin, int64_t end, bool stream, float* y) {
  if (w.bits == 8)
    decode_chunk<BytesToFloat>(w, begin, end, stream, y);
  else
    decode_chunk<ToFloat>(w, begin, end, stream, y);
}
template <bool kOrdinary>
QLORA_INLINE void decode_chunk_to_bf16(const Codes& w, int64_t begin, int64_t end, bool stream, uint16_t* y) {
  if (w.bits == 8)
    decode_chunk<BytesToBf16<kOrdinary>>(w, begin, end, stream, y);
  else
    decode_chunk<ToBf16<kOrdinary>>(w, begin, end, stream, y);
}
QLORA_INLINE void decode_chunk(const Codes& w, int64_t begin, int64_t end, bool stream, uint16_t* y) {
  const int64_t first = begin / w.block, last = (end + w.block - 1) / w.block;
  if (all_ordinary(w.absmax + (first - w.first_block), last - first))
    decode_chunk_to_bf16<true>(w, begin, end, stream, y);
  else
    decode_chunk_to_bf16<false>(w, begin, end, stream, y);
}

template <class Out>
static void dequantize_to(const Codes& codes, Out* y) {
  const int64_t n = codes.rows * codes.cols;
  const bool stream =
      n * static_cast<int64_t>(sizeof(Out)) >= kStreamBytes && reinterpret_cast<uintptr_t>(y) % 64 == 0;
  parallel(n, kChunkElements, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; e += kChunkElements) {
      const int64_t stop = smaller(end, e + kChunkElements);
      decode_chunk(with_scales_of(codes, e, stop), e, stop, stream, y);
    }
    if (stream) _mm_sfence();
  });
}

static void dequantize(const Codes& codes, float* y) {
  dequantize_to(codes, y);
}
static void dequantize_bf16(const Codes& codes, uint16_t* y) {
  dequantize_to(codes, y);
}

// ---- to operands

// 2 * kLanes values, as round_operands() in kernels/round_operands.h has them.
QLORA_INLINE void round_some_operands(const float* x, uint16_t* y) {
  write_bf16<false, true>(y, operand_bf16(load(x)), operand_bf16(load(x + kLanes)));
}
static void round_operands(const float* x, int64_t n, uint16_t* y) {
  constexpr int64_t kStep = 2 * kLanes;
  parallel(n, kChunkElements, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + kStep <= end; i += kStep) round_some_operands(x + i, y + i);
    if (i == end) return;
    const auto left = static_cast<size_t>(end - i);
    float rest[kStep] = {};
    uint16_t rounded[kStep];
    __builtin_memcpy(rest, x + i, left * sizeof(float));
    round_some_operands(rest, rounded);
    __builtin_memcpy(y + i, rounded, left * sizeof(uint16_t));
  });
}

// ---- to codes

// What is the same for all blocks of a call.
struct Encoder {
  const EncodeArgs& a;
  const Search search;
  explicit Encoder(const EncodeArgs& args) : a(args), search(*args.search) {}
};

// 32 weights to 16 bytes. kFinite: no product is NaN.
template <bool kFinite>
QLORA_INLINE void encode_weights(const Encoder& e, const float* w, float inverse, uint8_t* codes) {
  Vec x[32 / kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < 32 / kLanes; ++i) {
    x[i] = load(w + i * kLanes) * set1(inverse);
    if constexpr (!kFinite) x[i] = select(x[i] < set1(2), x[i], set1(e.a.search->like_nan));
  }
  encode_32(e.search, x, codes);
}

// The same to 8-bit codes: 32 bytes. NaN counts as 127.
QLORA_INLINE void encode_bytes(const float* w, float inverse, uint8_t* codes) {
#pragma GCC unroll 4
  for (int i = 0; i < 32; i += kLanes)
    store_bytes(codes + i, to_int(min(load(w + i) * set1(inverse) * set1(127), set1(127))));
}
static void encode_block_to_bytes(const float* w, int64_t n, float inverse, uint8_t* codes) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) encode_bytes(w + i, inverse, codes + i);
  if (i == n) return;
  float rest[32] = {};
  uint8_t bytes[32];
  __builtin_memcpy(rest, w + i, static_cast<size_t>(n - i) * sizeof(float));
  encode_bytes(rest, inverse, bytes);
  __builtin_memcpy(codes + i, bytes, static_cast<size_t>(n - i));
}

template <bool kFinite>
static void encode_block(const Encoder& e, const float* w, int64_t n, float inverse, uint8_t* codes) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) encode_weights<kFinite>(e, w + i, inverse, codes + i / 2);
  if (i == n) return;
  const int64_t left = n - i;
  float rest[32] = {};
  uint8_t bytes[16];
  __builtin_memcpy(rest, w + i, static_cast<size_t>(left) * sizeof(float));
  encode_weights<kFinite>(e, rest, inverse, bytes);
  if (left % 2 != 0) bytes[left / 2] = static_cast<uint8_t>((bytes[left / 2] & 0xf0) | e.a.search->zero);
  __builtin_memcpy(codes + i / 2, bytes, static_cast<size_t>(left + 1) / 2);
}

// The bits of max |w|: as integers, infinity and NaN come last.
static int32_t largest_bits(const float* w, int64_t n) {
  const IVec magnitude = iset1(0x7fffffff);
  IVec m[4] = {iset1(0), iset1(0), iset1(0), iset1(0)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) m[j] = max(m[j], as_int(load(w + i + j * kLanes)) & magnitude);
  for (; i < n; i += kLanes) m[0] = max(m[0], as_int(load_some(w + i, smaller(kLanes, n - i))) & magnitude);
  return largest(max(max(m[0], m[1]), max(m[2], m[3])));
}

// Blocks [begin, end), in groups: first the scales of all, so that no block waits for its division.
static void encode_blocks(const Encoder& e, int64_t begin, int64_t end) {
  constexpr int64_t kGroup = 16;
  constexpr int32_t kNormal = 0x00800000, kInfinity = 0x7f800000;
  const EncodeArgs& a = e.a;
  const int64_t group = larger(1, smaller(kGroup, 4096 / a.block));
  auto length = [&](int64_t b) { return smaller(a.block, a.n - b * a.block); };
  for (int64_t first = begin; first < end; first += group) {
    const int64_t stop = smaller(end, first + group);
    float inverse[kGroup];
    for (int64_t b = first; b < stop; ++b) {
      int32_t bits = largest_bits(a.weights + b * a.block, length(b));
      if (bits < kNormal) bits = 0;
      float absmax;
      __builtin_memcpy(&absmax, &bits, 4);
      a.absmax[b] = absmax;
      inverse[b - first] = bits == 0 ? 0.0f : 1.0f / absmax;
    }
    for (int64_t b = first; b < stop; ++b) {
      const float* w = a.weights + b * a.block;
      uint8_t* codes = a.codes + b * a.block * a.search->bits / 8;
      int32_t bits;
      __builtin_memcpy(&bits, a.absmax + b, 4);
      if (a.search->bits == 8)
        encode_block_to_bytes(w, length(b), inverse[b - first], codes);
      else if (bits < kInfinity)
        encode_block<true>(e, w, length(b), inverse[b - first], codes);
      else
        encode_block<false>(e, w, length(b), inverse[b - first], codes);
    }
  }
}

static void encode(const EncodeArgs& a) {
  const Encoder encoder(a);
  parallel((a.n + a.block - 1) / a.block, larger(1, 16384 / a.block),
           [&](int64_t begin, int64_t end) { encode_blocks(encoder, begin, end); });
}
