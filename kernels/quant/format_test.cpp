#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "kernels/quant/decode.h"
#include "kernels/quant/encode.h"
#include "kernels/quant/tables.h"

using namespace qlora;

namespace {

// Blocks of codes with the view that decodes them.
struct Coded {
  std::vector<uint8_t> codes;
  std::vector<float> absmax;
  WeightView view;
};

Coded encoded(Format format, const std::vector<float>& w, int64_t block) {
  const auto n = static_cast<int64_t>(w.size());
  Coded c;
  c.codes.resize(static_cast<size_t>(packed_bytes(format, n)));
  c.absmax.resize(static_cast<size_t>(block_count(n, block)));
  encode(format, w, block, c.codes.data(), c.absmax.data());
  c.view = {
      .format = format, .out = 1, .in = n, .data = c.codes.data(), .block = block, .absmax = c.absmax.data()};
  return c;
}

std::vector<float> decoded(const WeightView& w) {
  std::vector<float> out(static_cast<size_t>(w.out * w.in));
  decode_range(w, 0, w.out * w.in, out.data());
  return out;
}

std::vector<float> normal_numbers(size_t n, uint64_t seed) {
  std::vector<float> w(n);
  for (size_t i = 0; i < n; ++i) {
    Philox4 r = philox(seed, static_cast<uint32_t>(i), 0, 0, 0);
    double radius = std::sqrt(-2 * std::log((r.v[0] + 1.0) * 0x1p-32));
    w[i] = static_cast<float>(0.02 * radius * std::cos(6.283185307179586 * r.v[1] * 0x1p-32));
  }
  return w;
}

}  // namespace

TEST_CASE("every format decodes what it encoded within its bound for odd sizes and short blocks") {
  for (Format format : kFormats)
    for (size_t n : {1, 2, 63, 64, 65, 127, 1000, 4097})
      for (int64_t block : {32, 64, 256, 4096}) {
        std::vector<float> w = normal_numbers(n, n);
        Coded c = encoded(format, w, block);
        std::vector<float> back = decoded(c.view);
        float bound = 0;
        with_format(format, [&]<class F>(F) { bound = F::kErrorBound; });
        for (size_t i = 0; i < n; ++i) {
          float absmax = c.absmax[i / static_cast<size_t>(block)];
          REQUIRE(std::abs(w[i] - back[i]) <= bound * absmax);
          if (std::abs(w[i]) == absmax) REQUIRE(back[i] == w[i]);
        }
      }
}

TEST_CASE("the error on normal weights is that of the literature") {
  struct Row {
    Format format;
    int64_t block;
    double error;  // mean of (w - decoded)^2 over mean of w^2
  };
  const std::vector<float> w = normal_numbers(1 << 19, 11);
  for (const Row& row : {Row{Format::nf4, 32, 0.00762},
                         {Format::nf4, 64, 0.00845},
                         {Format::nf4, 128, 0.00914},
                         {Format::fp4, 64, 0.01487},
                         {Format::fp4_e3m0, 64, 0.03556},
                         {Format::int4, 64, 0.01158},
                         {Format::int4, 128, 0.01376},
                         {Format::int8, 64, 3.51e-5}}) {
    const Coded c = encoded(row.format, w, row.block);
    const std::vector<float> back = decoded(c.view);
    double error = 0, power = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      error += (double{w[i]} - double{back[i]}) * (double{w[i]} - double{back[i]});
      power += double{w[i]} * double{w[i]};
    }
    INFO(name_of(row.format) << " in blocks of " << row.block);
    CHECK(error / power == Approx(row.error).epsilon(0.01));
  }
}

TEST_CASE("every code of every format encodes back to itself and thresholds ascend") {
  for (Format format : kFormats)
    with_format(format, [&]<class F>(F) {
      for (int code = 0; code < F::kLevels; ++code)
        if (F::level(code) != 0) CHECK(F::encode(F::level(code)) == code);
      if constexpr (F::kBits == 4)
        for (int k = 1; k < F::kThresholds; ++k) CHECK(F::threshold(k - 1) < F::threshold(k));
      CHECK(F::level(F::encode(0.0f)) == 0);
    });
}

TEST_CASE("encoding decoded weights again changes nothing") {
  for (Format format : kFormats) {
    Coded once = encoded(format, normal_numbers(5000, 3), 64);
    std::vector<float> w = decoded(once.view);
    Coded twice = encoded(format, w, 64);
    CHECK(twice.absmax == once.absmax);
    CHECK(decoded(twice.view) == w);
  }
}

TEST_CASE("zero and denormal blocks decode to exact zeros and an odd end is padded with the code of zero") {
  for (Format format : kFormats) {
    std::vector<float> w(129, 0.0f);
    w[3] = -0.0f;
    w[70] = std::numeric_limits<float>::denorm_min();
    w[128] = 0.5f;
    Coded c = encoded(format, w, 64);
    CHECK(c.absmax == std::vector<float>{0, 0, 0.5f});
    std::vector<float> back = decoded(c.view);
    for (size_t i = 0; i < 128; ++i) REQUIRE(back[i] == 0.0f);
    CHECK(back[128] == 0.5f);
    if (bits_of(format) == 4)
      with_format(format, [&]<class F>(F) { CHECK((c.codes.back() & 15) == F::encode(0.0f)); });
  }
}

TEST_CASE("a block with NaN or infinity is marked by its absmax and the others are not") {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> w = normal_numbers(192, 1);
    w[100] = bad;
    Coded c = encoded(Format::nf4, w, 64);
    CHECK(std::isfinite(c.absmax[0]));
    CHECK_FALSE(std::isfinite(c.absmax[1]));
    CHECK(std::isfinite(c.absmax[2]));
  }
}

TEST_CASE("the number of threads does not change codes") {
  std::vector<float> w = normal_numbers(200001, 7);
  const int before = thread_count();
  set_thread_count(1);
  Coded one = encoded(Format::nf4, w, 64);
  set_thread_count(5);
  Coded five = encoded(Format::nf4, w, 64);
  set_thread_count(before);
  CHECK(one.codes == five.codes);
  CHECK(one.absmax == five.absmax);
}

TEST_CASE("a range decodes to the same numbers as the whole") {
  for (Format format : kFormats) {
    Coded c = encoded(format, normal_numbers(777, 5), 64);
    std::vector<float> whole = decoded(c.view), part(777);
    for (auto [lo, hi] : {std::pair{0, 0}, {1, 2}, {63, 65}, {64, 192}, {101, 777}}) {
      decode_range(c.view, lo, hi, part.data());
      for (int i = lo; i < hi; ++i)
        REQUIRE(part[static_cast<size_t>(i - lo)] == whole[static_cast<size_t>(i)]);
    }
  }
}
