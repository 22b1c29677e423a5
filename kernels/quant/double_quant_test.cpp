#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/philox.h"
#include "kernels/quant/decode.h"
#include "kernels/quant/double_quant.h"
#include "kernels/quant/dynamic8.h"

using namespace qlora;

namespace {

std::vector<float> scales(size_t n) {
  std::vector<float> a(n);
  for (size_t i = 0; i < n; ++i)
    a[i] = 0.04f + 0.03f * static_cast<float>(philox(9, static_cast<uint32_t>(i), 0, 0, 0).v[0] * 0x1p-32);
  return a;
}

}  // namespace

TEST_CASE("the dynamic map ascends from above minus one to one with zero at 127") {
  const Map8& map = signed_dynamic_map();
  CHECK(std::is_sorted(map.begin(), map.end()));
  CHECK(map[127] == 0);
  CHECK(map[255] == 1);
  CHECK(map[0] == Approx(-0.992969).margin(1e-6));
  for (size_t i = 0; i < 127; ++i) CHECK(map[126 - i] == -map[128 + i]);
}

TEST_CASE("an 8-bit code is the nearest entry and a midpoint goes to the even index") {
  const Map8& map = signed_dynamic_map();
  std::vector<float> x{1.0f};  // sets the scale
  for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<float>(i) * 2.5e-4f);
  std::vector<uint8_t> codes(x.size());
  std::vector<float> absmax(1);
  encode_dynamic8(x, 65536, map, codes.data(), absmax.data());
  for (size_t i = 0; i < x.size(); ++i) {
    double best = 2;
    for (float m : map) best = std::min(best, std::abs(double{x[i]} - double{m}));
    REQUIRE(std::abs(double{x[i]} - double{map[codes[i]]}) <= best + 6e-8);
  }
  Map8 grid;  // multiples of 1/256: midpoints are exact
  for (size_t i = 0; i < 256; ++i) grid[i] = (static_cast<float>(i) - 127) / 128;
  std::vector<float> ties{1.0f};
  for (size_t i = 0; i + 1 < 256; ++i) ties.push_back((grid[i] + grid[i + 1]) / 2);
  codes.resize(ties.size());
  encode_dynamic8(ties, 65536, grid, codes.data(), absmax.data());
  for (size_t i = 0; i + 1 < 256; ++i) CHECK(codes[i + 1] == (i % 2 == 0 ? i : i + 1));
}

TEST_CASE("nested scales come back within one percent of the spread for lengths around the nested block") {
  for (size_t n : {1, 2, 255, 256, 257, 1000}) {
    std::vector<float> a = scales(n);
    NestedScales nested = nest_scales(a);
    WeightView w{.absmax_codes = nested.codes.data(),
                 .nested_absmax = nested.absmax.data(),
                 .code_map = signed_dynamic_map().data(),
                 .nested_offset = nested.offset};
    for (size_t i = 0; i < n; ++i)
      REQUIRE(std::abs(block_absmax(w, static_cast<int64_t>(i)) - a[i]) <= 0.01f * nested.absmax[i / 256]);
  }
}

TEST_CASE("equal scales nest to the code of zero and come back exactly") {
  std::vector<float> a(300, 0.0625f);
  NestedScales nested = nest_scales(a);
  CHECK(nested.offset == 0.0625f);
  CHECK(nested.absmax == std::vector<float>{0, 0});
  CHECK(std::all_of(nested.codes.begin(), nested.codes.end(), [](uint8_t c) { return c == 127; }));
}

TEST_CASE("a given offset is used as it is") {
  std::vector<float> a = scales(100);
  CHECK(nest_scales(a, 0.05f).offset == 0.05f);
  CHECK(nest_scales(std::vector<float>{}).codes.empty());
}
