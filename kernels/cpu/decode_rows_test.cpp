// The decode class: within its stated error of f64, and the same bits for a row whatever it shares a call
// with.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "core/base/parallel.h"
#include "kernels/cases/cases.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/test_floats.h"
#include "kernels/cpu/test_tables.h"
#include "kernels/quant/tables.h"

using namespace qlora;
using namespace qlora::test;

namespace {

struct Size {
  int64_t out, in, block;
};

// Among them: blocks over several rows, outputs that are no multiple of four, more than one task.
const Size kSizes[] = {{1, 64, 64},    {7, 64, 128},    {40, 576, 64},    {33, 1536, 64},
                       {50, 192, 128}, {9, 320, 64},    {130, 640, 4096}, {6, 11008, 64},
                       {5, 1984, 64},  {300, 1088, 64}, {35, 64, 64},     {33, 960, 64}};

std::vector<std::pair<Format, bool>> stored_forms() {
  std::vector<std::pair<Format, bool>> all;
  for (Format f : kFormats) all.insert(all.end(), {{f, false}, {f, true}});
  return all;
}

// x whose segments differ in size, some with one value far above the others, some zero.
Floats activations(int64_t n) {
  Floats x = random_floats(n, 21);
  for (int64_t i = 0; i < n; ++i) {
    float& v = x[static_cast<size_t>(i)];
    if (i / 64 % 5 == 1) v *= 1e-3f;
    if (i / 64 % 5 == 3 && i % 64 == 17) v *= 1e3f;
    if (i / 64 % 7 == 6) v = 0;
  }
  return x;
}

double largest_level(Format format) {
  double top = 0;
  with_format(format, [&]<class F>(F) {
    for (int i = 0; i < F::kLevels; ++i) top = std::max(top, std::abs(static_cast<double>(F::level(i))));
  });
  return top;
}

// With and without tiles, and reading two places at a time.
std::vector<const cpu::Kernels*> decode_tables() {
  static const std::vector<cpu::Kernels> others = [] {
    std::vector<cpu::Kernels> all;
    for (const cpu::Kernels* kernels : runnable_tables()) {
      all.push_back(*kernels);
      all.back().decode_rows = kernels->decode_rows_halves;
      if (kernels == &cpu::avx512_bf16_kernels() ? !cpu_has_amx_int8() : kernels->lanes != 16) continue;
      all.push_back(*kernels);
      all.back().decode_rows = kernels->decode_rows_amx;
    }
    return all;
  }();
  std::vector<const cpu::Kernels*> all = runnable_tables();
  for (const cpu::Kernels& kernels : others) all.push_back(&kernels);
  return all;
}

void decode(Backend& backend, const WeightView& w, const float* x, int64_t rows, float* y,
            Write mode = Write::overwrite) {
  backend.qgemm({.x = x, .w = w, .y = y, .rows = rows, .mode = mode, .numerics = Numerics::decode});
}

}  // namespace

TEST_CASE("Products of the decode class keep their stated distance from f64") {
  for (const cpu::Kernels* kernels : runnable_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    for (const Size& s : kSizes) {
      for (auto [format, dq] : stored_forms()) {
        Device device(*backend, DType::f32);
        const TestWeight weight = make_weight(3, format, dq, s.out, s.in, s.block);
        const int64_t rows = 3, segments = s.in / 64;
        const Floats x = activations(rows * s.in);
        Floats y(static_cast<size_t>(rows * s.out), 0.5f);
        const WeightView w = weight.view(device);
        // The scales, exactly as the kernel sees them: of the levels of one, the largest.
        Floats absmax(static_cast<size_t>(block_count(s.out * s.in, s.block)));
        for (size_t i = 0; i < absmax.size(); ++i)
          absmax[i] = dq ? weight.code_map[weight.absmax_codes[i]] * weight.nested_absmax[i / 256] +
                               weight.nested_offset
                         : weight.absmax[i];
        decode(*backend, w, x.data(), rows, y.data(), Write::accumulate);
        double worst_ratio = 0;
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t o = 0; o < s.out; ++o) {
            double exact = 0.5, bound = std::numeric_limits<float>::epsilon();
            for (int64_t g = 0; g < segments; ++g) {
              double size = 0, top = 0;
              for (int64_t i = g * 64; i < g * 64 + 64; ++i) {
                const double v = x[static_cast<size_t>(r * s.in + i)];
                exact += v * weight.dense[static_cast<size_t>(o * s.in + i)];
                size += std::abs(v);
                top = std::max(top, std::abs(v));
              }
              const double scale = std::abs(absmax[static_cast<size_t>((o * s.in + g * 64) / s.block)]) *
                                   largest_level(format);
              bound += 1.01 * scale *
                       (std::exp2(-13.5) * (size + 64 * top) +
                        0x1p-22 * static_cast<double>(segments + 16) * size);
            }
            const double error = std::abs(y[static_cast<size_t>(r * s.out + o)] - exact);
            worst_ratio = worse(worst_ratio, error / bound);
          }
        INFO(kernels->name << " " << weight.name() << " " << s.out << "x" << s.in << " block " << s.block);
        CHECK(worst_ratio <= 1);
      }
    }
  }
}

TEST_CASE("A row of the decode class has the same bits alone and among others and on any number of threads") {
  const int before = thread_count();
  for (const cpu::Kernels* kernels : decode_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    // Few segments and outputs; so many that the scales of halves are found in two parts; the last two have
    // no whole segments: the exact class stands in.
    for (const Size& s : {Size{70, 576, 64}, Size{33, 832, 64}, Size{37, 320, 128}, Size{17, 64, 64},
                          Size{31, 128, 128}, Size{16, 192, 64}, Size{485, 576, 64}, Size{110, 3008, 4096},
                          Size{40, 96, 64}, Size{24, 128, 32}}) {
      for (auto [format, dq] : stored_forms()) {
        Device device(*backend, DType::f32);
        const TestWeight weight = make_weight(3, format, dq, s.out, s.in, s.block);
        const WeightView w = weight.view(device);
        const int64_t most = 17;
        const Floats x = activations(most * s.in);
        Floats alone(static_cast<size_t>(most * s.out));
        set_thread_count(1);
        for (int64_t r = 0; r < most; ++r)
          decode(*backend, w, x.data() + r * s.in, 1, alone.data() + r * s.out);
        // (tiles take eight rows and more, of int8 six, sixteen at a time)
        for (int64_t rows : {2, 3, 4, 5, 6, 7, 8, 9, 17}) {
          set_thread_count(1 + static_cast<int>(rows % 3));
          Floats together(static_cast<size_t>(rows * s.out));
          decode(*backend, w, x.data(), rows, together.data());
          INFO(kernels->name << " " << weight.name() << " " << s.out << "x" << s.in << " rows " << rows);
          CHECK(same_bits(together.data(), alone.data(), rows * s.out));
        }
      }
    }
  }
  set_thread_count(before);
}

TEST_CASE("Weights that share x have the same bits in the decode class together and one by one") {
  const int before = thread_count();
  for (const cpu::Kernels* kernels : decode_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    // Outputs that fill no eight, blocks of several segments, and last a weight that stays behind: of other
    // levels, or dense.
    for (auto [format, last] : {std::pair{Format::nf4, Format::nf4},
                                {Format::nf4, Format::fp4},
                                {Format::nf4, Format::int8},
                                {Format::int8, Format::int8},
                                {Format::int8, Format::dense}}) {
      Device device(*backend, DType::f32);
      // With a weight of few outputs tiles take none of them.
      for (auto [rows, few] : {std::pair<int64_t, int64_t>{5, 9}, {9, 9}, {9, 17}}) {
        const int64_t in = 640;
        const std::vector<TestWeight> weights = {make_weight(3, format, true, 101, in),
                                                 make_weight(4, format, false, few, in, 128),
                                                 make_weight(5, last, last != Format::dense, 64, in)};
        const Floats x = activations(rows * in);
        std::vector<Floats> alone, together;
        std::vector<LinearTerm> terms;
        for (const TestWeight& w : weights) {
          alone.emplace_back(static_cast<size_t>(rows * w.out));
          together.emplace_back(alone.back().size());
          terms.push_back({.w = w.view(device), .y = together.back().data()});
          for (int64_t r = 0; r < rows; ++r)
            decode(*backend, terms.back().w, x.data() + r * in, 1, alone.back().data() + r * w.out);
        }
        for (int threads : {1, 3}) {
          set_thread_count(threads);
          for (Floats& y : together) std::fill(y.begin(), y.end(), 7.0f);
          backend->linear({.x = x.data(), .rows = rows, .terms = terms, .numerics = Numerics::decode});
          INFO(kernels->name << ", the last " << weights[2].name() << ", " << rows << " rows, " << threads
                             << " threads");
          for (size_t i = 0; i < alone.size(); ++i)
            CHECK(same_bits(together[i].data(), alone[i].data(), static_cast<int64_t>(alone[i].size())));
        }
      }
    }
  }
  set_thread_count(before);
}

TEST_CASE("Every instruction set gives the same bits in the decode class") {
  // The ninth row goes alone where nothing takes all nine. Few segments, and long outputs, whose scales are
  // found in two parts.
  for (const Size& s : {Size{130, 576, 64}, Size{45, 3008, 4096}}) {
    for (Format format : {Format::nf4, Format::int8}) {
      std::vector<Floats> results;
      const TestWeight weight = make_weight(3, format, true, s.out, s.in, s.block);
      const Floats x = activations(9 * s.in);
      for (const cpu::Kernels* kernels : decode_tables()) {
        auto backend = cpu::make_cpu(*kernels);
        Device device(*backend, DType::f32);
        results.emplace_back(static_cast<size_t>(9 * s.out), 0.5f);
        decode(*backend, weight.view(device), x.data(), 9, results.back().data(), Write::accumulate);
        INFO(kernels->name << " " << weight.name() << " " << s.out << "x" << s.in);
        CHECK(same_bits(results.front(), results.back()));
      }
    }
  }
}

TEST_CASE("An infinity or NaN in a row makes its results of the decode class NaN and no others") {
  for (const cpu::Kernels* kernels : decode_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    Device device(*backend, DType::f32);
    for (Format format : {Format::nf4, Format::int8}) {
      const TestWeight weight = make_weight(3, format, false, 20, 128);
      for (float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::quiet_NaN()})
        for (size_t rows : {3u, 9u}) {
          Floats x = random_floats(static_cast<int64_t>(rows) * 128, 4), y(rows * 20);
          x[128 + 77] = bad;
          decode(*backend, weight.view(device), x.data(), static_cast<int64_t>(rows), y.data());
          for (size_t i = 0; i < y.size(); ++i) CHECK(std::isnan(y[i]) == (i / 20 == 1));
        }
    }
  }
}
