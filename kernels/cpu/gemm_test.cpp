// The products of every instruction set: right, and bit-equal where the laws ask for it. Where no SIMD build
// runs, the loops over tables have nothing to do.

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/test_floats.h"
#include "kernels/cpu/test_tables.h"
#include "kernels/quant/decode.h"

using namespace qlora;
using namespace qlora::test;
using cpu::GemmArgs;
using cpu::Kernels;

namespace {

struct Shape {
  int64_t m, n, k;
};

// Around the tile (6 x 16, 14 x 32), the chunk of k (320) and the super-chunk (4,096).
const Shape kShapes[] = {{1, 1, 1},     {1, 40, 17},   {5, 15, 8},    {6, 16, 320},
                         {7, 17, 321},  {13, 33, 7},   {14, 32, 64},  {29, 70, 96},
                         {40, 24, 641}, {100, 8, 130}, {515, 50, 40}, {3, 9, 9000}};

double element(const float* p, int64_t ld, bool transposed, int64_t i, int64_t j) {
  return transposed ? p[j * ld + i] : p[i * ld + j];
}

GemmArgs arguments(Layout layout, const Shape& s, const float* x, const float* w, float* y) {
  return {.layout = layout,
          .x = x,
          .dense = w,
          .y = y,
          .ldx = layout == Layout::tn ? s.m : s.k,
          .ldw = layout == Layout::nt ? s.k : s.n,
          .ldy = s.n,
          .m = s.m,
          .n = s.n,
          .k = s.k};
}

// A quantized matrix with arbitrary codes.
struct Quantized {
  std::vector<uint8_t> codes;
  std::vector<float> absmax;
  WeightView view;
  Quantized(int64_t out, int64_t in, int64_t block, uint64_t seed) {
    PhiloxStream stream(seed);
    codes.resize(static_cast<size_t>(packed_bytes(Format::nf4, out * in)));
    for (uint8_t& c : codes) c = static_cast<uint8_t>(stream.next());
    absmax.resize(static_cast<size_t>(block_count(out * in, block)));
    for (float& a : absmax) a = stream.uniform() + 0.1f;
    view = {.format = Format::nf4,
            .out = out,
            .in = in,
            .data = codes.data(),
            .block = block,
            .absmax = absmax.data()};
  }
};

}  // namespace

TEST_CASE("Dense products of every layout and odd size agree with sums in f64") {
  for (const Kernels* kernels : test::runnable_tables()) {
    for (const Shape& s : kShapes) {
      for (Layout layout : {Layout::nt, Layout::nn, Layout::tn}) {
        INFO(kernels->name << " layout " << static_cast<int>(layout) << " " << s.m << " " << s.n << " "
                           << s.k);
        auto x = random_floats(s.m * s.k, 1), w = random_floats(s.n * s.k, 2);
        auto y = random_floats(s.m * s.n, 3), before = y;
        GemmArgs a = arguments(layout, s, x.data(), w.data(), y.data());
        a.alpha = 0.5f;
        a.add = s.m % 2 == 1;
        kernels->gemm(a);
        double worst = 0;
        for (int64_t i = 0; i < s.m; ++i)
          for (int64_t j = 0; j < s.n; ++j) {
            double sum = 0, size = 0;
            for (int64_t k = 0; k < s.k; ++k) {
              double t = element(x.data(), a.ldx, layout == Layout::tn, i, k) *
                         element(w.data(), a.ldw, layout != Layout::nt, j, k);
              sum += t;
              size += std::abs(t);
            }
            auto at = static_cast<size_t>(i * s.n + j);
            double expected = 0.5 * sum + (a.add ? before[at] : 0.0f);
            worst = worse(worst, std::abs(y[at] - expected) / (size + 1));
          }
        CHECK(worst < 1e-6);
      }
    }
  }
}

TEST_CASE("A product writes nothing outside its destination and reads nothing outside its operands") {
  for (const Kernels* kernels : test::runnable_tables()) {
    const Shape s{9, 21, 37};
    // Exact allocations: an address sanitizer sees a read beyond them; the frame around y shows writes.
    auto x = random_floats(s.m * s.k, 1), w = random_floats(s.n * s.k, 2);
    const int64_t ld = s.n + 5;
    std::vector<float> y(static_cast<size_t>((s.m + 2) * ld), 7.0f);
    GemmArgs a = arguments(Layout::nt, s, x.data(), w.data(), y.data() + ld);
    a.ldy = ld;
    kernels->gemm(a);
    for (int64_t i = -1; i <= s.m; ++i)
      for (int64_t j = 0; j < ld; ++j)
        if (i < 0 || i == s.m || j >= s.n) CHECK(y[static_cast<size_t>((i + 1) * ld + j)] == 7.0f);
  }
}

TEST_CASE("A row of a product has the same bits alone and among others and on any number of threads") {
  const int before = thread_count();
  for (const Kernels* kernels : test::runnable_tables()) {
    const Shape s{70, 150, 700};
    for (Layout layout : {Layout::nt, Layout::nn}) {
      auto x = random_floats(s.m * s.k, 1), w = random_floats(s.n * s.k, 2);
      std::vector<float> all(static_cast<size_t>(s.m * s.n)), three(all.size()), alone(all.size());
      set_thread_count(1);
      kernels->gemm(arguments(layout, s, x.data(), w.data(), all.data()));
      for (int64_t i = 0; i < s.m; ++i)
        kernels->gemm(arguments(layout, {1, s.n, s.k}, x.data() + i * s.k, w.data(), alone.data() + i * s.n));
      set_thread_count(3);
      kernels->gemm(arguments(layout, s, x.data(), w.data(), three.data()));
      INFO(kernels->name);
      CHECK(same_bits(all, three));
      CHECK(same_bits(all, alone));
    }
  }
  set_thread_count(before);
}

TEST_CASE("Tasks that pack x for themselves give the bits of those that share it") {
  const int before = thread_count();
  for (const Kernels* kernels : test::runnable_tables())
    // More than a task's rows; and few rows, so that columns are cut as well.
    for (const Shape& s : {Shape{630, 40, 320}, Shape{20, 1100, 330}})
      for (Layout layout : {Layout::nt, Layout::tn}) {
        auto x = random_floats(s.m * s.k, 1), w = random_floats(s.n * s.k, 2);
        std::vector<float> shared(static_cast<size_t>(s.m * s.n), 1.0f);
        set_thread_count(1);
        GemmArgs a = arguments(layout, s, x.data(), w.data(), shared.data());
        a.add = true;
        kernels->gemm(a);
        a.x_once = true;
        for (int threads : {1, 2, 3}) {
          set_thread_count(threads);
          std::vector<float> own(shared.size(), 1.0f);
          a.y = own.data();
          kernels->gemm(a);
          INFO(kernels->name << " " << s.m << " rows, threads " << threads);
          CHECK(same_bits(shared, own));
        }
      }
  set_thread_count(before);
}

TEST_CASE("Every instruction set gives the same bits for a product") {
  auto tables = test::runnable_tables();
  const Shape s{31, 77, 650};
  auto x = random_floats(s.m * s.k, 1), w = random_floats(s.n * s.k, 2);
  std::vector<float> first(static_cast<size_t>(s.m * s.n)), other(first.size());
  for (size_t t = 0; t < tables.size(); ++t) {
    auto& y = t == 0 ? first : other;
    tables[t]->gemm(arguments(Layout::nt, s, x.data(), w.data(), y.data()));
    if (t > 0) CHECK(same_bits(first, other));
  }
}

TEST_CASE("Vectorized decoding gives the bits of the scalar definition") {
  for (const Kernels* kernels : test::runnable_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    struct Case {
      int64_t out, in, block;
    };
    for (const Case& c : {Case{64, 576, 64}, Case{7, 13, 64}, Case{33, 24, 64}, Case{5, 96, 40},
                          Case{3, 50, 7}, Case{300, 640, 4096}}) {
      Quantized q(c.out, c.in, c.block, 5);
      std::vector<float> expected(static_cast<size_t>(c.out * c.in)), got(expected.size(), -1.0f);
      decode_range(q.view, 0, c.out * c.in, expected.data());
      backend->dequantize({.w = q.view, .dst = got.data()});
      INFO(kernels->name << " " << c.out << " " << c.in << " " << c.block);
      CHECK(same_bits(expected, got));
    }
  }
}

TEST_CASE("A product with a quantized weight has the bits of the product with its dense equal") {
  for (const Kernels* kernels : test::runnable_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    const bool tiles = runs_tiles(*kernels);
    struct Case {
      int64_t rows, out, in, block;
    };
    for (const Case& c : {Case{17, 96, 576, 64}, Case{5, 50, 40, 64}, Case{9, 33, 24, 64}, Case{2, 7, 13, 5},
                          Case{20, 72, 1000, 64}, Case{3, 64, 64, 128}, Case{1, 40, 344, 8}}) {
      Quantized q(c.out, c.in, c.block, 6);
      std::vector<float> dense(static_cast<size_t>(c.out * c.in));
      decode_range(q.view, 0, c.out * c.in, dense.data());
      WeightView w{.out = c.out, .in = c.in, .data = dense.data()};
      for (Layout layout : {Layout::nt, Layout::nn}) {
        for (Operands operands : kAllOperands) {
          if (operands == Operands::bf16_amx && !tiles) continue;
          bool forward = layout == Layout::nt;
          auto x = random_floats(c.rows * (forward ? c.in : c.out), 8);
          std::vector<float> a(static_cast<size_t>(c.rows * (forward ? c.out : c.in)), 1.0f), b = a;
          QGemm product{.layout = layout, .x = x.data(), .w = w, .y = a.data(), .rows = c.rows};
          product.mode = Write::accumulate;
          product.operands = operands;
          backend->qgemm(product);
          product.w = q.view;
          product.y = b.data();
          backend->qgemm(product);
          INFO(kernels->name << " " << c.out << "x" << c.in << " block " << c.block << " forward " << forward
                             << " " << name_of(operands));
          CHECK(same_bits(a, b));
        }
      }
    }
  }
}

TEST_CASE("Double-quantized scales are undone with the bits of the scalar definition") {
  for (const Kernels* kernels : test::runnable_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    const int64_t out = 70, in = 320;
    Quantized q(out, in, 64, 9);
    PhiloxStream stream(10);
    auto map = random_floats(256, 11), nested = random_floats(2, 12);
    std::vector<uint8_t> scale_codes(q.absmax.size());
    for (uint8_t& c : scale_codes) c = static_cast<uint8_t>(stream.next());
    q.view.absmax = nullptr;
    q.view.absmax_codes = scale_codes.data();
    q.view.nested_absmax = nested.data();
    q.view.code_map = map.data();
    q.view.nested_offset = 0.37f;
    std::vector<float> expected(static_cast<size_t>(out * in)), got(expected.size());
    decode_range(q.view, 0, out * in, expected.data());
    backend->dequantize({.w = q.view, .dst = got.data()});
    INFO(kernels->name);
    CHECK(same_bits(expected, got));
  }
}
