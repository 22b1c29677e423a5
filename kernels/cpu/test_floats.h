#pragma once
// For tests of the f32 kernels: random operands, and comparisons of results.

#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/philox.h"
#include "core/base/test_data.h"

namespace qlora::test {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// n values between -size and size.
inline Floats random_floats(int64_t n, uint64_t seed, float size = 1) {
  PhiloxStream stream(seed);
  Floats v(static_cast<size_t>(n));
  for (float& x : v) x = (stream.uniform() * 2 - 1) * size;
  return v;
}

// The largest error, relative to what is expected where that is above 1.
inline double worst(const Floats& found, const Doubles& expected) {
  if (found.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double error = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    error = worse(error, std::abs(static_cast<double>(found[i]) - expected[i]) / (1 + std::abs(expected[i])));
  }
  return error;
}

inline bool same_bits(const float* a, const float* b, int64_t n) {
  return n == 0 || std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}
inline bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), static_cast<int64_t>(a.size()));
}

}  // namespace qlora::test
