// Products of few rows take other kernels than products of many. Nothing may show it.

#include <catch2/catch.hpp>
#include <memory>
#include <vector>

#include "core/base/half.h"
#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "kernels/cases/cases.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/test_floats.h"
#include "kernels/cpu/test_tables.h"

using namespace qlora;
using namespace qlora::test;

namespace {

constexpr int64_t kMany = 48;  // rows of the product that all others are compared with

struct Size {
  int64_t out, in, block;
};

// Whole and broken groups of columns, words of codes, blocks and chunks of k; blocks that straddle rows; rows
// whose lines meet in a set of the first cache.
const Size kSizes[] = {{32, 32, 32}, {17, 64, 64},    {40, 576, 64}, {70, 640, 128}, {33, 1536, 64},
                       {8, 96, 64},  {5, 37, 5},      {9, 100, 64},  {50, 321, 32},  {64, 352, 32},
                       {1, 7, 64},   {24, 1030, 64},  {576, 8, 64},  {100, 16, 64},  {41, 4160, 32},
                       {7, 33, 64},  {96, 224, 4096}, {41, 1024, 64}};

}  // namespace

TEST_CASE("A product of few rows has the bits of the same rows among many") {
  const int threads_before = thread_count();
  for (const cpu::Kernels* kernels : runnable_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    for (const Size& s : kSizes) {
      std::vector<std::pair<Format, bool>> formats = {{Format::dense, false}};
      for (Format f : kFormats) formats.insert(formats.end(), {{f, false}, {f, true}});
      for (auto [format, dq] : formats) {
        Device device(*backend, DType::f32);
        TestWeight weight = make_weight(3, format, dq, s.out, s.in, s.block);
        WeightView w = weight.view(device, &weight.dense);
        for (Layout layout : {Layout::nt, Layout::nn}) {
          const int64_t n = layout == Layout::nt ? s.out : s.in, k = layout == Layout::nt ? s.in : s.out;
          const Floats x = random_floats(kMany * k, 1), before = random_floats(kMany * n, 2);
          for (Write mode : {Write::overwrite, Write::accumulate}) {
            Floats many = before;
            set_thread_count(1);
            backend->qgemm(
                {.layout = layout, .x = x.data(), .w = w, .y = many.data(), .rows = kMany, .mode = mode});
            for (int64_t rows = 1; rows <= 40; rows += rows < 9 ? 1 : 5) {
              set_thread_count(1 + static_cast<int>(rows % 2));
              const int64_t first = kMany - rows;
              Floats few(before.begin() + first * n, before.end());
              backend->qgemm({.layout = layout,
                              .x = x.data() + first * k,
                              .w = w,
                              .y = few.data(),
                              .rows = rows,
                              .mode = mode});
              INFO(kernels->name << " " << weight.name() << " " << s.out << "x" << s.in << " block "
                                 << s.block << " layout " << static_cast<int>(layout) << " rows " << rows);
              CHECK(same_bits(few.data(), many.data() + first * n, rows * n));
            }
          }
        }
      }
    }
  }
  set_thread_count(threads_before);
}

TEST_CASE("Few rows of strided operands write only what is theirs") {
  const int64_t n = 77, many = 40;
  for (const cpu::Kernels* kernels : runnable_tables()) {
    std::vector<decltype(kernels->gemm)> products = {kernels->gemm, kernels->gemm_bf16};
    if (runs_tiles(*kernels)) products.push_back(kernels->gemm_amx);
    for (size_t product = 0; product < products.size(); ++product)
      // Of the third, lines of w's rows meet in a set of the first cache; the last are those that tiles take.
      for (auto [layout, k, ldw, stored] : {std::tuple{Layout::nt, int64_t{45}, int64_t{52}, false},
                                            {Layout::nn, 45, 84, false},
                                            {Layout::nn, 45, 84, true},
                                            {Layout::nt, 45, 512, false},
                                            {Layout::nt, 64, 80, false},
                                            {Layout::nt, 64, 80, true}}) {
        const int64_t ldx = k + 3, ldy = n + 5;
        const Floats x = random_floats(many * ldx, 1), w = random_floats((n + k) * ldw, 2);
        std::vector<uint16_t> narrow;
        for (float v : w) narrow.push_back(to_bf16(v).bits);
        Floats all(static_cast<size_t>(many * ldy), 7.0f);
        cpu::GemmArgs a{.layout = layout,
                        .x = x.data(),
                        .dense = stored ? nullptr : w.data(),
                        .dense_bf16 = stored ? narrow.data() : nullptr,
                        .y = all.data(),
                        .ldx = ldx,
                        .ldw = ldw,
                        .ldy = ldy,
                        .m = many,
                        .n = n,
                        .k = k,
                        .alpha = 0.75f};
        products[product](a);
        for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 17, 32}) {
          Floats few(static_cast<size_t>(many * ldy), 7.0f);
          a.y = few.data();
          a.m = rows;
          products[product](a);
          Floats expected(static_cast<size_t>(many * ldy), 7.0f);
          std::copy(all.begin(), all.begin() + rows * ldy, expected.begin());
          INFO(kernels->name << " product " << product << " layout " << static_cast<int>(layout) << " k " << k
                             << " ldw " << ldw << " stored " << stored << " rows " << rows);
          CHECK(same_bits(few, expected));
        }
      }
  }
}

TEST_CASE("Few rows with bf16 operands or bf16 weights have the bits of the same rows among many") {
  for (const cpu::Kernels* kernels : runnable_tables()) {
    for (const Size& s : kSizes) {
      const int64_t n = s.out, k = s.in;
      const Floats x = random_floats(kMany * k, 1), w = random_floats(n * k, 2),
                   before = random_floats(kMany * n, 3);
      std::vector<uint16_t> narrow;
      for (float v : w) narrow.push_back(to_bf16(v).bits);
      std::vector<decltype(kernels->gemm)> products = {kernels->gemm, kernels->gemm_bf16,
                                                       kernels->gemm_bf16_fma};
      if (runs_tiles(*kernels)) products.push_back(kernels->gemm_amx);
      for (auto* product : products)
        for (auto [layout, stored] :
             {std::pair{Layout::nt, false}, {Layout::nt, true}, {Layout::nn, false}, {Layout::nn, true}}) {
          auto multiply = [&](int64_t rows) {
            Floats y(before.begin(), before.begin() + rows * n);
            product({.layout = layout,
                     .x = x.data(),
                     .dense = stored ? nullptr : w.data(),
                     .dense_bf16 = stored ? narrow.data() : nullptr,
                     .y = y.data(),
                     .ldx = k,
                     .ldw = layout == Layout::nt ? k : n,
                     .ldy = n,
                     .m = rows,
                     .n = n,
                     .k = k,
                     .alpha = 0.75f,
                     .add = n % 2 == 1});
            return y;
          };
          const Floats many = multiply(kMany);
          for (int64_t rows = 1; rows < 34; rows += rows < 8 ? 1 : 8) {
            INFO(kernels->name << " " << n << "x" << k << " layout " << static_cast<int>(layout) << " rows "
                               << rows << " stored as bf16 " << stored);
            CHECK(same_bits(multiply(rows).data(), many.data(), rows * n));
          }
        }
    }
  }
}

TEST_CASE("Few rows with bf16 operands, from codes, have the bits of the same rows among many") {
  const int threads_before = thread_count();
  // Chunks of k that end within a step of 32, groups of columns that are left over, blocks that straddle
  // rows, and what the packed product keeps.
  const Size sizes[] = {{32, 32, 32},    {40, 576, 64},  {64, 352, 32},   {8, 96, 64},
                        {96, 224, 4096}, {24, 1888, 64}, {72, 2080, 128}, {32, 4608, 64},
                        {16, 64, 5},     {33, 128, 64},  {24, 40, 64}};
  for (const cpu::Kernels* kernels : runnable_tables()) {
    auto backend = cpu::make_cpu(*kernels);
    for (const Size& s : sizes)
      for (Format format : {Format::nf4, Format::int4, Format::int8})
        for (bool dq : {false, true}) {
          Device device(*backend, DType::f32);
          TestWeight weight = make_weight(3, format, dq, s.out, s.in, s.block);
          // Some values become denormal, or nearly.
          if (!dq) weight.absmax.front() = 1.2e-38f;
          const WeightView w = weight.view(device, &weight.dense);
          const Floats x = random_floats(kMany * s.in, 1), before = random_floats(kMany * s.out, 2);
          const Write mode = dq ? Write::overwrite : Write::accumulate;
          for (Operands operands : {Operands::bf16, Operands::bf16_amx}) {
            if (operands == Operands::bf16_amx && !runs_tiles(*kernels)) continue;
            auto multiply = [&](int64_t rows) {
              Floats y(before.end() - rows * s.out, before.end());
              backend->qgemm({.x = x.data() + (kMany - rows) * s.in,
                              .w = w,
                              .y = y.data(),
                              .rows = rows,
                              .mode = mode,
                              .operands = operands});
              return y;
            };
            set_thread_count(1);
            const Floats many = multiply(kMany);
            for (int64_t rows = 1; rows <= 33; rows += rows < 18 || rows > 31 ? 1 : 7) {
              set_thread_count(1 + static_cast<int>(rows % 2));
              INFO(kernels->name << " " << name_of(operands) << " " << weight.name() << " " << s.out << "x"
                                 << s.in << " block " << s.block << " rows " << rows);
              CHECK(same_bits(multiply(rows).data(), many.data() + (kMany - rows) * s.out, rows * s.out));
            }
          }
        }
  }
  set_thread_count(threads_before);
}
