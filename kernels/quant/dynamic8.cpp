#include "kernels/quant/dynamic8.h"

#include <algorithm>
#include <cmath>
#include <limits>

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

Map8 build_map() {
  constexpr int kDecades = 7;
  Map8 map;
  size_t n = 0;
  for (int decade = 0; decade < kDecades; ++decade) {
    const auto scale = static_cast<float>(std::pow(10.0, decade - (kDecades - 1)));
    const int cells = 1 << decade;
    for (int i = 0; i < cells; ++i) {
      float middle = (grid_point(i, cells + 1) + grid_point(i + 1, cells + 1)) / 2;
      map[n++] = scale * middle;
      map[n++] = -(scale * middle);
    }
  }
  map[n++] = 0;
  map[n++] = 1;
  std::sort(map.begin(), map.end());
  return map;
}

// Between neighbours of the map; behind the last one, infinity.
Map8 midpoints(const Map8& map) {
  Map8 middle;
  for (size_t i = 0; i + 1 < map.size(); ++i) middle[i] = (map[i] + map[i + 1]) / 2;
  middle[255] = std::numeric_limits<float>::infinity();
  return middle;
}

uint8_t nearest(const Map8& middle, float x) {
  auto at = static_cast<size_t>(std::lower_bound(middle.begin(), middle.end(), x) - middle.begin());
  if (middle[at] == x && at % 2 != 0) ++at;
  return static_cast<uint8_t>(at);
}

}  // namespace

const Map8& signed_dynamic_map() {
  static const Map8 map = build_map();
  return map;
}

void encode_dynamic8(std::span<const float> x, int64_t block, const Map8& map, uint8_t* codes,
                     float* absmax) {
  const Map8 middle = midpoints(map);
  const auto n = static_cast<int64_t>(x.size());
  parallel_for(block_count(n, block), 8, [&](int64_t lo, int64_t hi) {
    for (int64_t b = lo; b < hi; ++b) {
      int64_t begin = b * block, end = std::min(n, begin + block);
      float largest = 0;
      for (int64_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(x[i]));
      if (largest < std::numeric_limits<float>::min()) largest = 0;
      absmax[b] = largest;
      const float inverse = largest == 0 ? 0.0f : 1.0f / largest;
      for (int64_t i = begin; i < end; ++i) codes[i] = nearest(middle, x[i] * inverse);
    }
  });
}

}  // namespace qlora
