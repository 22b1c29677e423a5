#include "eval/tasks/python_random.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <unordered_set>

#include "core/base/check.h"

namespace qlora {

// "init_by_array" of the generator's authors, with the seed's 32-bit digits as the array.
PythonRandom::PythonRandom(uint64_t seed) {
  std::vector<uint32_t> key = {static_cast<uint32_t>(seed)};
  if (seed >> 32 != 0) key.push_back(static_cast<uint32_t>(seed >> 32));
  state_[0] = 19650218;
  auto before = [&](size_t i) { return state_[i - 1] ^ (state_[i - 1] >> 30); };
  for (size_t i = 1; i < kWords; ++i) state_[i] = 1812433253U * before(i) + static_cast<uint32_t>(i);
  size_t i = 1;
  auto step = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  for (size_t n = 0; n < kWords; ++n, step()) {
    const size_t j = n % key.size();
    state_[i] = (state_[i] ^ (before(i) * 1664525U)) + key[j] + static_cast<uint32_t>(j);
  }
  for (size_t n = 1; n < kWords; ++n, step())
    state_[i] = (state_[i] ^ (before(i) * 1566083941U)) - static_cast<uint32_t>(i);
  state_[0] = 0x80000000U;
}

void PythonRandom::refill() {
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t y = (state_[i] & 0x80000000U) | (state_[(i + 1) % kWords] & 0x7fffffffU);
    state_[i] = state_[(i + 397) % kWords] ^ (y >> 1) ^ ((y & 1U) * 0x9908b0dfU);
  }
  at_ = 0;
}

uint32_t PythonRandom::next() {
  if (at_ == kWords) refill();
  uint32_t y = state_[at_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680U;
  y ^= (y << 15) & 0xefc60000U;
  return y ^ (y >> 18);
}

uint32_t PythonRandom::below(uint32_t n) {
  const int spare = std::countl_zero(n);
  uint32_t drawn = next() >> spare;
  while (drawn >= n) drawn = next() >> spare;
  return drawn;
}

std::vector<size_t> PythonRandom::sample(size_t n, size_t k) {
  QLORA_CHECK(k <= n && n < (uint64_t{1} << 32), failure, "{} of {} cannot be drawn", k, n);
  // Few of many are remembered, many of few are taken out of a list: Python chooses by what needs less room.
  size_t room = 21;
  if (k > 5) {
    size_t power = 4;
    while (power < 3 * k) power *= 4;
    room += power;
  }
  std::vector<size_t> drawn;
  if (n <= room) {
    std::vector<size_t> left(n);
    std::iota(left.begin(), left.end(), size_t{0});
    for (size_t i = 0; i < k; ++i) {
      const size_t j = below(static_cast<uint32_t>(n - i));
      drawn.push_back(left[j]);
      left[j] = left[n - i - 1];
    }
    return drawn;
  }
  std::unordered_set<size_t> known;
  while (drawn.size() < k)
    if (const size_t j = below(static_cast<uint32_t>(n)); known.insert(j).second) drawn.push_back(j);
  return drawn;
}

}  // namespace qlora
