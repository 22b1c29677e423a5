// What amx-inl.h has, in loops: for tests on processors without AMX.

struct Tiles {
  alignas(64) uint32_t word[8][16][16];
  int64_t columns = 16;  // of all but 4 and 5
};
QLORA_INLINE Tiles& tiles() {
  static thread_local Tiles all;
  return all;
}

template <int kTile>
QLORA_INLINE size_t row_bytes() {
  return kTile == 4 || kTile == 5 ? 64 : static_cast<size_t>(4 * tiles().columns);
}

template <int kTile>
QLORA_INLINE void tile_load(const void* p, int64_t stride) {
  for (int i = 0; i < 16; ++i)
    __builtin_memcpy(tiles().word[kTile][i], static_cast<const char*>(p) + i * stride, row_bytes<kTile>());
}
template <int kTile>
QLORA_INLINE void tile_load_passing(const void* p, int64_t stride) {
  tile_load<kTile>(p, stride);
}
template <int kTile>
QLORA_INLINE void tile_store(void* p, int64_t stride) {
  for (int i = 0; i < 16; ++i)
    __builtin_memcpy(static_cast<char*>(p) + i * stride, tiles().word[kTile][i], row_bytes<kTile>());
}
template <int kTile>
QLORA_INLINE void tile_zero() {
  __builtin_memset(tiles().word[kTile], 0, sizeof(tiles().word[kTile]));
}

// The upper or the lower half of words, as f32.
QLORA_INLINE Vec odd_elements(const uint32_t* words) {
  alignas(64) uint32_t bits[16];
  for (int i = 0; i < 16; ++i) bits[i] = words[i] & 0xffff0000u;
  return load(reinterpret_cast<const float*>(bits));
}
QLORA_INLINE Vec even_elements(const uint32_t* words) {
  alignas(64) uint32_t bits[16];
  for (int i = 0; i < 16; ++i) bits[i] = words[i] << 16;
  return load(reinterpret_cast<const float*>(bits));
}

template <int kSum, int kA, int kB>
QLORA_INLINE void tile_dot() {
  const FlushDenormals<true> flush;
  for (int i = 0; i < 16; ++i) {
    Vec even = zero(), odd = zero();
    for (int j = 0; j < 16; ++j) {
      alignas(64) uint32_t same[16];
      for (uint32_t& word : same) word = tiles().word[kA][i][j];
      const uint32_t* w = tiles().word[kB][j];
      even = fma(even_elements(same), even_elements(w), even);
      odd = fma(odd_elements(same), odd_elements(w), odd);
    }
    float sums[16];
    __builtin_memcpy(sums, tiles().word[kSum][i], 64);
    store(sums, load(sums) + (even + odd));
    __builtin_memcpy(tiles().word[kSum][i], sums, 64);
  }
}

template <int kSum, int kA, int kB, bool kSignedA, bool kSignedB>
QLORA_INLINE void tile_dot_bytes() {
  // Multiplied modulo 2^32, signed or not.
  const auto byte = [](uint32_t word, int i, bool is_signed) __attribute__((always_inline)) {
    const uint32_t b = word >> 8 * i & 255;
    return is_signed ? (b ^ 128) - 128 : b;
  };
  Tiles& all = tiles();
  for (int i = 0; i < 16; ++i)
    for (int b = 0; b < 64; ++b) {
      const uint32_t a = byte(all.word[kA][i][b / 4], b % 4, kSignedA);
      for (int j = 0; j < 16; ++j) all.word[kSum][i][j] += a * byte(all.word[kB][b / 4][j], b % 4, kSignedB);
    }
}

struct LevelBytes {
  static constexpr int kBits = 4;
  int16_t words[16];
  explicit LevelBytes(const WholeLevels& levels) { __builtin_memcpy(words, levels.words, sizeof(words)); }
};
QLORA_INLINE void level_bytes(const LevelBytes& t, const uint8_t* codes, uint8_t* upper, uint8_t* lower) {
  for (int i = 0; i < 64; ++i) {
    const int16_t word = t.words[codes[i % 32] >> (i < 32 ? 4 : 0) & 15];
    upper[i] = static_cast<uint8_t>(word >> 8);
    lower[i] = static_cast<uint8_t>(word);
  }
}

class TilesOn {
 public:
  // NaN in all of them: what is not loaded shows.
  explicit TilesOn(int64_t columns = 16) {
    __builtin_memset(tiles().word, 0xff, sizeof(tiles().word));
    tiles().columns = columns;
  }
};
