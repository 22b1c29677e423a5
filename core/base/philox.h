#pragma once
// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). A pure function of key and counter; nothing keeps a state. Standard library only (device code).

#include <cstdint>

namespace qlora {

struct Philox4 {
  uint32_t v[4];
};

// Ten rounds. Known answer of the paper: key 0, counter 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
constexpr Philox4 philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Mixes a seed with a stream's number into a key (splitmix64's finalizer).
constexpr uint64_t mix_seed(uint64_t seed, uint64_t stream) {
  uint64_t z = seed + 0x9E3779B97F4A7C15u * (stream + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Stream numbers of strings (names of linears, data sets): FNV-1a, 64 bits.
constexpr uint64_t stream_of(const char* text, unsigned long size) {
  uint64_t h = 0xcbf29ce484222325u;
  for (unsigned long i = 0; i < size; ++i) h = (h ^ static_cast<unsigned char>(text[i])) * 0x100000001b3u;
  return h;
}

// Uniform in [0, 1): 24 bits, exact in float.
constexpr float uniform01(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

// A sequence of numbers for host-side use (shuffles, initialisation): values 0, 1, 2, ... of one key.
class PhiloxStream {
 public:
  explicit PhiloxStream(uint64_t key, uint64_t position = 0) : key_(key), position_(position) {}
  uint32_t next() {
    uint64_t block = position_ >> 2;
    Philox4 r = philox(key_, static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0);
    return r.v[position_++ & 3];
  }
  float uniform() { return uniform01(next()); }
  // Uniform in [0, n) without bias. REQUIRES: n > 0.
  uint32_t below(uint32_t n) {
    uint64_t m = uint64_t{next()} * n;
    if (static_cast<uint32_t>(m) < n) {
      uint32_t threshold = (0u - n) % n;
      while (static_cast<uint32_t>(m) < threshold) m = uint64_t{next()} * n;
    }
    return static_cast<uint32_t>(m >> 32);
  }
  uint64_t position() const { return position_; }

 private:
  uint64_t key_, position_;
};

}  // namespace qlora
