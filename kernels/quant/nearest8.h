#pragma once
// Codes of 256 ascending values (quant/dynamic8.h), one at a time: on the host and on a device.

namespace qlora {

// The index of the value that is nearest to x; an exact tie goes to the even one.
constexpr int nearest8(const float* map, float x) {
  int low = 0, high = 255;
  while (low < high) {
    const int i = (low + high) / 2;
    const float middle = (map[i] + map[i + 1]) / 2;
    if (middle < x || (middle == x && i % 2 == 1)) {
      low = i + 1;
    } else {
      high = i;
    }
  }
  return low;
}

// The same where a value must not lose its sign: the neighbour with the sign of x. REQUIRES: a map with
// values of both signs.
constexpr int nearest8_signed(const float* map, float x) {
  const int i = nearest8(map, x);
  if (x < 0 && !(map[i] < 0)) return i - 1;
  if (x > 0 && map[i] < 0) return i + 1;
  return i;
}

}  // namespace qlora
