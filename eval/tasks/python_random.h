#pragma once
// Python's `random.Random`, as far as evaluations that others publish depend on it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace qlora {

// MT19937 (Matsumoto & Nishimura 1998), seeded and drawn from as CPython 3 does with a whole number.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);
  uint32_t next();  // 32 bits
  // randrange(n): bits are drawn again until they are below n. REQUIRES: 0 < n < 2^32.
  uint32_t below(uint32_t n);
  // sample(range(n), k): k different numbers below n, in the order in which they are drawn.
  // REQUIRES: k <= n < 2^32.
  std::vector<size_t> sample(size_t n, size_t k);

 private:
  static constexpr size_t kWords = 624;
  void refill();
  std::array<uint32_t, kWords> state_{};
  size_t at_ = kWords;
};

}  // namespace qlora
