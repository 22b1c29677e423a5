// Encoding and decoding of whole matrices: every instruction set gives the bytes of the plain loops, for
// every format, size, block and alignment, and for weights and scales of every kind.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/base/half.h"
#include "core/base/parallel.h"
#include "kernels/cpu/code_search.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/test_floats.h"
#include "kernels/cpu/test_tables.h"
#include "kernels/quant/double_quant.h"
#include "kernels/quant/dynamic8.h"
#include "kernels/quant/encode.h"

using namespace qlora;
using namespace qlora::test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();
constexpr uint8_t kGuard = 0xa5;

const int64_t kLengths[] = {1, 2, 3, 31, 32, 33, 63, 64, 65, 95, 96, 127, 128, 1000, 4097, 66000, 150001};
const int64_t kBlocks[] = {2, 32, 50, 64, 96, 128, 4096};

// Ordinary numbers of a few sizes with special ones among them, as often as one in `rarity`.
Floats weights(int64_t n, uint64_t seed, uint32_t rarity) {
  constexpr float kSpecial[] = {0,         -0.0f,     kDenormal, -kDenormal, 1e-39f, -0x1p-126f,
                                0x1p-149f, kInfinity, 3.4e38f,   -kInfinity, kNan,   -kNan,
                                -3.4e38f,  1,         -1,        0x1p-126f};
  PhiloxStream stream(seed);
  Floats w = random_floats(n, seed + 1);
  for (size_t i = 0; i < w.size(); ++i) {
    if (i / 700 % 3 == 1) w[i] *= 1e-38f;  // many of them denormal
    if (i / 500 % 5 == 1) w[i] = 0;
    if (rarity > 0 && stream.next() % rarity == 0) w[i] = kSpecial[stream.next() % std::size(kSpecial)];
  }
  return w;
}

struct Coded {
  std::vector<uint8_t> codes, absmax;
  bool operator==(const Coded&) const = default;
};

// `encode_into` writes between guards, at addresses that are no multiple of anything.
template <class F>
Coded coded(Format format, int64_t n, int64_t block, int64_t shift, const F& encode_into) {
  const auto bytes = static_cast<size_t>(packed_bytes(format, n)), before = static_cast<size_t>(shift);
  const auto blocks = static_cast<size_t>(block_count(n, block));
  std::vector<uint8_t> codes(before + bytes + 64, kGuard);
  Floats absmax(before + blocks + 16, 7);
  encode_into(codes.data() + before, absmax.data() + before);
  for (size_t i = 0; i < codes.size(); ++i)
    if (i < before || i >= before + bytes) REQUIRE(codes[i] == kGuard);
  for (size_t i = 0; i < absmax.size(); ++i)
    if (i < before || i >= before + blocks) REQUIRE(absmax[i] == 7);
  Coded c{{codes.begin() + shift, codes.begin() + shift + static_cast<int64_t>(bytes)},
          std::vector<uint8_t>(4 * blocks)};
  std::memcpy(c.absmax.data(), absmax.data() + before, c.absmax.size());
  return c;
}

Coded plain(Format format, std::span<const float> w, int64_t block) {
  return coded(format, static_cast<int64_t>(w.size()), block, 0,
               [&](uint8_t* codes, float* absmax) { encode_plain(format, w, block, codes, absmax); });
}

Coded by(const cpu::Kernels& kernels, Format format, std::span<const float> w, int64_t block, int64_t shift) {
  return coded(format, static_cast<int64_t>(w.size()), block, shift, [&](uint8_t* codes, float* absmax) {
    kernels.encode({.search = &cpu::code_search(format),
                    .weights = w.data(),
                    .n = static_cast<int64_t>(w.size()),
                    .block = block,
                    .codes = codes,
                    .absmax = absmax});
  });
}

// A matrix of random codes [1, n] with scales of every kind, f32 or nested.
struct Matrix {
  std::vector<uint8_t> codes;
  Floats absmax;
  NestedScales nested;
  Floats map;
  WeightView view;

  Matrix(Format format, int64_t n, int64_t block, bool dq, uint32_t rarity) {
    PhiloxStream stream(static_cast<uint64_t>(n + block));
    codes.resize(static_cast<size_t>(packed_bytes(format, n)));
    for (uint8_t& c : codes) c = static_cast<uint8_t>(stream.next());
    absmax = weights(block_count(n, block), 3, rarity);
    for (float& a : absmax) a = std::abs(a);
    view = {.format = format, .out = 1, .in = n, .data = codes.data(), .block = block};
    if (!dq) {
      view.absmax = absmax.data();
      return;
    }
    for (float& a : absmax)
      if (!(a < 1e30f)) a = 0.5f;
    nested = nest_scales(absmax);
    map.assign(signed_dynamic_map().begin(), signed_dynamic_map().end());
    view.absmax_codes = nested.codes.data();
    view.nested_absmax = nested.absmax.data();
    view.code_map = map.data();
    view.nested_offset = nested.offset;
    if (rarity > 0) nested.absmax.back() = kInfinity;  // scales that are NaN
  }
};

// The bytes of the matrix as elements of `type`, written between guards.
std::vector<uint8_t> dense(Backend& backend, const WeightView& w, DType type, size_t shift) {
  const size_t bytes = static_cast<size_t>(w.in) * size_of(type), room = bytes + 256;
  std::vector<uint64_t> words(room / 8 + 1);
  auto* p = reinterpret_cast<uint8_t*>(words.data());
  std::memset(p, kGuard, room);
  const size_t before = 64 + shift * size_of(type);
  backend.dequantize({.w = w, .dst = p + before, .type = type});
  for (size_t i = 0; i < room; ++i)
    if (i < before || i >= before + bytes) REQUIRE(p[i] == kGuard);
  return {p + before, p + before + bytes};
}

// Formats that vectors encode.
std::vector<Format> vector_formats() {
  std::vector<Format> formats;
  for (Format f : kFormats)
    if (cpu::code_search(f).usable) formats.push_back(f);
  return formats;
}

}  // namespace

TEST_CASE("Vectors encode every format but those that are too fine about zero") {
  CHECK(vector_formats() == std::vector<Format>{Format::nf4, Format::fp4, Format::int4, Format::int8});
}

TEST_CASE("Vectors encode every block to the bytes of the plain loops") {
  for (Format format : vector_formats())
    for (int64_t n : kLengths)
      for (int64_t block : kBlocks)
        for (uint32_t rarity : {0u, 40u, 1000u}) {
          if (n > 10000 && rarity == 40) continue;
          const int64_t shift = n % 5;
          const Floats all = weights(shift + n, static_cast<uint64_t>(n), rarity);
          const std::span<const float> w = std::span(all).subspan(static_cast<size_t>(shift));
          const Coded expected = plain(format, w, block);
          for (const cpu::Kernels* kernels : runnable_tables()) {
            INFO(kernels->name << " " << name_of(format) << " " << n << " in blocks of " << block);
            REQUIRE(by(*kernels, format, w, block, shift) == expected);
          }
        }
}

TEST_CASE("Vectors decide as the plain loops do beside every threshold of every format") {
  for (Format format : vector_formats()) {
    Floats x, levels, boundaries;
    with_format(format, [&]<class F>(F) {
      for (int code = 0; code < F::kLevels; ++code) levels.push_back(F::level(code));
    });
    std::erase_if(levels, [](float level) { return level < -1; });
    std::sort(levels.begin(), levels.end());
    // Of 4-bit formats those that are searched; else what lies between levels.
    if (bits_of(format) == 4)
      boundaries.assign(std::begin(cpu::code_search(format).boundaries),
                        std::end(cpu::code_search(format).boundaries));
    else
      for (size_t i = 1; i < levels.size(); ++i) boundaries.push_back((levels[i - 1] + levels[i]) / 2);
    for (float boundary : boundaries) {
      if (!(boundary < 1)) continue;
      float below = boundary, above = boundary;
      for (int i = 0; i < (bits_of(format) == 4 ? 200 : 20); ++i) {
        x.insert(x.end(), {below, above, -below, -above});
        below = std::nextafter(below, -2.0f);
        above = std::nextafter(above, 2.0f);
      }
    }
    x.insert(x.end(), levels.begin(), levels.end());
    // Blocks whose first weight sets the scale: 1, and others whose reciprocal is not exact.
    for (float scale : {1.0f, 0.7f, 3.1e-5f, 1.3e30f, 1.5e-38f, 0.1f}) {
      Floats w;
      for (float value : x) {
        if (w.size() % 64 == 0) w.push_back(scale);
        w.push_back(value * scale);
      }
      const Coded expected = plain(format, w, 64);
      for (const cpu::Kernels* kernels : runnable_tables()) {
        INFO(kernels->name << " " << name_of(format) << " at scale " << scale);
        CHECK(by(*kernels, format, w, 64, 0) == expected);
      }
    }
  }
}

TEST_CASE("Vectors decode every matrix to the bits of the plain loops") {
  auto reference = make_backend("reference");
  for (const cpu::Kernels* kernels : runnable_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    for (Format format : kFormats)
      for (int64_t n : kLengths)
        for (int64_t block : kBlocks)
          for (bool dq : {false, true})
            for (uint32_t rarity : {0u, 3u}) {
              if (n > 70000 && rarity > 0) continue;
              const Matrix m(format, n, block, dq, rarity);
              for (DType type : {DType::f32, DType::bf16}) {
                INFO(kernels->name << " " << name_of(format) << " " << n << " in blocks of " << block
                                   << (dq ? " nested to " : " to ") << name_of(type));
                const std::vector<uint8_t> expected = dense(*reference, m.view, type, 0);
                REQUIRE(dense(*backend, m.view, type, static_cast<size_t>(n % 3)) == expected);
              }
            }
  }
}

TEST_CASE("Neither codes nor decoded elements depend on the number of threads") {
  const int before = thread_count();
  const Floats w = weights(400001, 5, 300);
  for (const cpu::Kernels* kernels : runnable_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    for (Format format : vector_formats()) {
      const Matrix m(format, 400001, 64, true, 0);
      set_thread_count(1);
      const Coded one = by(*kernels, format, w, 64, 0);
      const auto narrow = dense(*backend, m.view, DType::bf16, 0),
                 wide = dense(*backend, m.view, DType::f32, 0);
      set_thread_count(5);
      CHECK(by(*kernels, format, w, 64, 0) == one);
      CHECK(dense(*backend, m.view, DType::bf16, 0) == narrow);
      CHECK(dense(*backend, m.view, DType::f32, 0) == wide);
    }
  }
  set_thread_count(before);
}

TEST_CASE("Weights are encoded by vectors unless plain loops are asked for") {
  const char* set = std::getenv("QLORA_BACKEND");
  const std::string before = set == nullptr ? "" : set;
  ::setenv("QLORA_BACKEND", "reference", 1);
  CHECK(cpu::best_kernels() == nullptr);
  ::setenv("QLORA_BACKEND", "auto", 1);
  CHECK((cpu::best_kernels() != nullptr) == cpu_has_avx2());
  ::setenv("QLORA_BACKEND", "avx2", 1);
  if (cpu_has_avx2()) CHECK(cpu::best_kernels() == &cpu::avx2_kernels());
  set == nullptr ? ::unsetenv("QLORA_BACKEND") : ::setenv("QLORA_BACKEND", before.c_str(), 1);
}
