#include "kernels/quant/dynamic8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "core/base/parallel.h"
#include "kernels/quant/formats.h"

namespace qlora {
namespace {

// steps values from 0.1 to 1, counted from the nearer end.
float grid_point(int i, int steps) {
  const float first = 0.1f, last = 1.0f;
  const auto step = static_cast<float>((double{last} - double{first}) / (steps - 1));
  return i < steps / 2 ? std::fma(step, static_cast<float>(i), first)
                       : std::fma(-step, static_cast<float>(steps - 1 - i), last);
}

Map8 build_map(bool has_signs) {
  constexpr int kDecades = 7;
  Map8 map;
  size_t n = 0;
  for (int decade = 0; decade < kDecades; ++decade) {
    const auto scale = static_cast<float>(std::pow(10.0, decade - (kDecades - 1)));
    const int cells = has_signs ? 1 << decade : 2 << decade;
    for (int i = 0; i < cells; ++i) {
      float middle = (grid_point(i, cells + 1) + grid_point(i + 1, cells + 1)) / 2;
      map[n++] = scale * middle;
      if (has_signs) map[n++] = -(scale * middle);
    }
  }
  map[n++] = 0;
  map[n++] = 1;
  std::sort(map.begin(), map.end());
  return map;
}

// Finds the nearest of a map's values: the number of midpoints below x, counted from where the numbers with
// the same upper 16 bits (sign, exponent, seven bits of the mantissa) begin. Hardly a map has two midpoints
// so close that more than one step is left.
class Nearest {
 public:
  explicit Nearest(const Map8& map) : first_(size_t{1} << 16) {
    for (size_t i = 0; i + 1 < map.size(); ++i) middle_[i] = (map[i] + map[i + 1]) / 2;
    middle_[255] = std::numeric_limits<float>::infinity();
    for (uint32_t upper = 0; upper < first_.size(); ++upper) {
      const bool negative = upper >> 15 != 0;  // their least is the largest in size
      const auto least = std::bit_cast<float>(upper << 16 | (negative ? 0xffffu : 0u));
      const auto at = std::lower_bound(middle_.begin(), middle_.end() - 1, least) - middle_.begin();
      first_[upper] = static_cast<uint8_t>(at);
    }
  }
  uint8_t operator()(float x) const {
    size_t at = first_[std::bit_cast<uint32_t>(x) >> 16];
    at += static_cast<size_t>(middle_[at] < x);
    while (middle_[at] < x) ++at;
    at += static_cast<size_t>(middle_[at] == x) & at;  // a tie goes to the even index
    return static_cast<uint8_t>(at);
  }

 private:
  Map8 middle_;  // between neighbours of the map; behind the last one, infinity
  std::vector<uint8_t> first_;
};

}  // namespace

const Map8& signed_dynamic_map() {
  static const Map8 map = build_map(true);
  return map;
}

const Map8& unsigned_dynamic_map() {
  static const Map8 map = build_map(false);
  return map;
}

void encode_dynamic8(std::span<const float> x, int64_t block, const Map8& map, uint8_t* codes,
                     float* absmax) {
  static const Nearest of_signed(signed_dynamic_map());
  const std::optional<Nearest> other =
      &map == &signed_dynamic_map() ? std::nullopt : std::optional<Nearest>(map);
  const Nearest& nearest = other ? *other : of_signed;
  const auto n = static_cast<int64_t>(x.size());
  parallel_for(block_count(n, block), 8, [&](int64_t lo, int64_t hi) {
    for (int64_t b = lo; b < hi; ++b) {
      int64_t begin = b * block, end = std::min(n, begin + block);
      int32_t bits = 0;  // of the largest |x|
      for (int64_t i = begin; i < end; ++i)
        bits = std::max(bits, std::bit_cast<int32_t>(x[static_cast<size_t>(i)]) & 0x7fffffff);
      auto largest = std::bit_cast<float>(bits);
      if (largest < std::numeric_limits<float>::min()) largest = 0;
      absmax[b] = largest;
      const float inverse = largest == 0 ? 0.0f : 1.0f / largest;
      for (int64_t i = begin; i < end; ++i) codes[i] = nearest(x[i] * inverse);
    }
  });
}

}  // namespace qlora
