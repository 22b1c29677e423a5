// Products with bf16 operands: every instruction set gives the bits of the definition (args_matmul.h),
// written out here once more in scalars.

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/half.h"
#include "core/base/parallel.h"
#include "kernels/cpu/test_floats.h"
#include "kernels/cpu/test_tables.h"

using namespace qlora;
using namespace qlora::test;
using cpu::GemmArgs;
using cpu::Kernels;

namespace {

// Denormals are zeros, with their sign.
float flushed(float v) {
  return std::abs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v;
}

// Results are tiny if they are so when rounded to 24 bits: of what lies closer than 2^-151 below the smallest
// normal number, nothing is. (`exact` is, up to the rounding of a double.)
float result(float rounded, double exact) {
  return std::abs(exact) < 0x1p-126 - 0x1p-151 ? std::copysign(0.0f, rounded) : rounded;
}

float multiply_add(float a, float b, float c) {
  const float x = flushed(a), y = flushed(b), z = flushed(c);
  return result(std::fma(x, y, z), static_cast<double>(x) * y + z);
}

// One product's operands: x as x(i, k), w as w(k, j).
struct Operand {
  const Floats& values;
  int64_t row_stride, column_stride;
  float at(int64_t row, int64_t column, int64_t rows, int64_t columns) const {
    if (row >= rows || column >= columns) return 0;
    return to_float(to_bf16(flushed(values[static_cast<size_t>(row * row_stride + column * column_stride)])));
  }
};

// y[i, j] of the definition; `y` is what stands there before, when it is added to.
struct Sum {
  const Operand& x;
  const Operand& w;
  int64_t i, j;
  float add(float sum, int64_t p, int64_t end) const {
    return multiply_add(x.at(i, p, i + 1, end), w.at(p, j, end, j + 1), sum);
  }
  float pairs(int64_t begin, int64_t end) const {
    float sum = 0;
    for (int64_t p = begin; p < end; p += 2) sum = add(add(sum, p + 1, end), p, end);
    return sum;
  }
  // As tdpbf16ps: even elements and odd ones of 32 apart.
  float steps(int64_t begin, int64_t end) const {
    float sum = 0;
    for (int64_t step = begin; step < end; step += 32) {
      float even = 0, odd = 0;
      for (int64_t p = step; p < std::min(end, step + 32); p += 2)
        even = add(even, p, end), odd = add(odd, p + 1, end);
      const float both = plus(even, odd);
      sum = plus(sum, both);
    }
    return sum;
  }
  static float plus(float a, float b) { return multiply_add(1.0f, a, b); }
};

float defined(const Operand& x, const Operand& w, int64_t i, int64_t j, int64_t k, bool amx, float alpha,
              bool add, float y) {
  const int64_t step = amx ? 32 : 8, most = amx ? 768 : 1024;
  const int64_t chunks = (k + most - 1) / most, chunk = ((k + chunks - 1) / chunks + step - 1) / step * step;
  for (int64_t begin = 0; begin < k; begin += chunk) {
    const int64_t end = std::min(k, begin + chunk);
    const Sum of{x, w, i, j};
    const float sum = amx ? of.steps(begin, end) : of.pairs(begin, end);
    y = add || begin > 0 ? multiply_add(alpha, sum, y)
                         : result(alpha * sum, static_cast<double>(alpha) * sum);
  }
  return y;
}

bool equal(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
}

// What sums meet: ordinary values; products around the smallest normal number, denormal operands among them;
// or now and then a value that overflows. Ties between two bf16 values and zeros stand in all of them.
enum class Kind { ordinary, tiny, huge };

Floats operands(int64_t n, uint64_t seed, Kind kind) {
  PhiloxStream stream(seed);
  Floats v = random_floats(n, seed + 1);
  for (float& value : v) {
    const uint32_t draw = stream.next() % 256;
    if (draw < 8) value = value < 0 ? -1.00390625f : 1.01171875f;
    if (draw == 8) value = std::copysign(0.0f, value);
    if (kind == Kind::tiny) value *= draw % 16 == 15 ? 0x1p-130f : 0x1p-63f;
    if (kind == Kind::huge && draw == 9) value *= 0x1p127f;
  }
  return v;
}

struct Shape {
  int64_t m, n, k;
};
// Around the tiles, the chunk of k (1,024; 768 with AMX) and the super-chunk (4,096), with odd ends of k.
const Shape kShapes[] = {{1, 1, 1},    {1, 40, 17},    {6, 16, 1024}, {7, 17, 1025},  {13, 33, 7},
                         {14, 32, 64}, {20, 32, 39},   {64, 48, 96},  {33, 64, 1057}, {29, 70, 9},
                         {5, 15, 641}, {100, 31, 130}, {3, 9, 4099},  {2, 50, 2}};

}  // namespace

namespace {

// The products of a table with bf16 operands that run here.
struct Named {
  std::string name;
  void (*product)(const GemmArgs&);
  bool amx = false;
};
std::vector<Named> products_of(const Kernels& t) {
  std::vector<Named> all = {
      {"bf16", t.gemm_bf16}, {"bf16 by fma", t.gemm_bf16_fma}, {"bf16_amx by fma", t.gemm_amx_fma, true}};
  if (runs_tiles(t)) all.push_back({"bf16_amx", t.gemm_amx, true});
  return all;
}

// Whether every product with these operands has the bits of its definition.
void check_definition(const Shape& s, Kind kind, Layout layout) {
  const Floats x = operands(s.m * s.k, 1, kind), w = operands(s.n * s.k, 5, kind);
  const Floats before = random_floats(s.m * s.n, 9, kind == Kind::tiny ? 0x1p-125f : 1.0f);
  std::vector<uint16_t> narrow;
  for (float v : w) narrow.push_back(to_bf16(v).bits);
  const bool tn = layout == Layout::tn, nt = layout == Layout::nt, add = s.n % 2 == 1;
  const Operand xo{x, tn ? 1 : s.k, tn ? s.m : 1}, wo{w, nt ? 1 : s.n, nt ? s.k : 1};
  const float alpha = add ? 0.7f : 1.0f;
  Floats expected[2] = {before, before};
  for (int64_t i = 0; i < s.m; ++i)
    for (int64_t j = 0; j < s.n; ++j)
      for (bool amx : {false, true}) {
        float& y = expected[amx ? 1 : 0][static_cast<size_t>(i * s.n + j)];
        y = defined(xo, wo, i, j, s.k, amx, alpha, add, y);
      }
  for (const Kernels* kernels : runnable_tables())
    for (const Named& named : products_of(*kernels))
      for (bool stored : {false, true}) {
        Floats y = before;
        named.product({.layout = layout,
                       .x = x.data(),
                       .dense = stored ? nullptr : w.data(),
                       .dense_bf16 = stored ? narrow.data() : nullptr,
                       .y = y.data(),
                       .ldx = tn ? s.m : s.k,
                       .ldw = nt ? s.k : s.n,
                       .ldy = s.n,
                       .m = s.m,
                       .n = s.n,
                       .k = s.k,
                       .alpha = alpha,
                       .add = add});
        int64_t wrong = 0;
        for (size_t i = 0; i < y.size(); ++i) wrong += !equal(y[i], expected[named.amx ? 1 : 0][i]);
        INFO(kernels->name << " " << named.name << ", layout " << static_cast<int>(layout) << " " << s.m
                           << "x" << s.n << "x" << s.k << " kind " << static_cast<int>(kind)
                           << (stored ? ", w stored as bf16" : ""));
        CHECK(wrong == 0);
      }
}

}  // namespace

TEST_CASE("Products with bf16 operands have the bits of their definition on every instruction set") {
  for (const Shape& s : kShapes)
    for (Kind kind : {Kind::ordinary, Kind::tiny, Kind::huge})
      for (Layout layout : {Layout::nt, Layout::nn, Layout::tn}) check_definition(s, kind, layout);
}

TEST_CASE("Operands are rounded to bf16 as core base rounds them for every kind of f32") {
  // y = x * 1: what comes out is the rounded operand.
  std::vector<uint32_t> bits;
  for (uint32_t top = 0; top < 0x10000; top += 7)
    for (uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      bits.push_back(top << 16 | low);
  Floats x(bits.size()), y(bits.size());
  std::memcpy(x.data(), bits.data(), bits.size() * sizeof(float));
  const float one = 1;
  const auto m = static_cast<int64_t>(x.size());
  for (const Kernels* kernels : runnable_tables()) {
    std::vector<uint16_t> kept(x.size());
    kernels->round_operands(x.data(), m, kept.data());
    int64_t differ = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const bf16 expected = to_operand(x[i]);
      differ += kept[i] != expected.bits || !equal(to_float(expected), to_float(to_bf16(flushed(x[i]))));
    }
    INFO(kernels->name);
    CHECK(differ == 0);
    for (const Named& named : products_of(*kernels)) {
      named.product({.x = x.data(),
                     .dense = &one,
                     .y = y.data(),
                     .ldx = 1,
                     .ldw = 1,
                     .ldy = 1,
                     .m = m,
                     .n = 1,
                     .k = 1});
      int64_t wrong = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        // The sum begins at +0, so a zero comes out positive.
        wrong += !equal(y[i], flushed(to_float(to_bf16(flushed(x[i])))) + 0.0f);
      }
      INFO(named.name);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("Many rows have the same bits in blocks, whoever packs them, as a few at a time") {
  const int before = thread_count();
  const int64_t m = 1100, n = 40, k = 90, few = 100, rank = 4;
  const Floats x = random_floats(m * k, 1), w = random_floats(n * k, 2), u = random_floats(m * rank, 3),
               b = random_floats(n * rank, 4), levels = random_floats(16, 5);
  const cpu::Codes codes{.data = reinterpret_cast<const uint8_t*>(x.data()),  // any codes
                         .levels = levels.data(),
                         .absmax = w.data(),
                         .rows = n,
                         .cols = k};
  Floats expected(static_cast<size_t>(m * n)), y(expected.size());
  // Rows [row, row + rows), of which an adapter has those from 70 on.
  const auto arguments = [&](const cpu::Codes* of, int64_t row, int64_t rows, cpu::Delta& delta, Floats& to) {
    const int64_t lo = std::max<int64_t>(row, 70);
    delta = {
        .lo = lo - row, .hi = rows, .rank = rank, .u = &u[static_cast<size_t>(lo * rank)], .w = b.data()};
    return GemmArgs{.x = &x[static_cast<size_t>(row * k)],
                    .dense = w.data(),
                    .codes = of,
                    .y = &to[static_cast<size_t>(row * n)],
                    .ldx = k,
                    .ldw = k,
                    .ldy = n,
                    .m = rows,
                    .n = n,
                    .k = k,
                    .deltas = &delta,
                    .delta_count = 1};
  };
  cpu::Delta delta;
  for (const Kernels* kernels : runnable_tables())
    for (const Named& named : products_of(*kernels))
      for (const cpu::Codes* of : {static_cast<const cpu::Codes*>(nullptr), &codes}) {
        INFO(kernels->name << " " << named.name << (of != nullptr ? " from codes" : ""));
        for (int64_t row = 0; row < m; row += few) named.product(arguments(of, row, few, delta, expected));
        for (int threads : {1, 2, 3}) {
          set_thread_count(threads);
          for (int turn = 0; turn < 3; ++turn) {  // x is packed for this one alone, is kept, was kept
            GemmArgs g = arguments(of, 0, m, delta, y);
            g.x_once = turn == 0;
            g.same_x = turn == 2;
            std::fill(y.begin(), y.end(), 7.0f);
            named.product(g);
            CHECK(same_bits(y, expected));
          }
        }
      }
  set_thread_count(before);
}

TEST_CASE("A product with bf16 operands leaves the flushing of denormals as it was") {
  volatile float tiny = 0x1p-127f;
  for (const Kernels* kernels : runnable_tables()) {
    const Floats x = random_floats(40 * 40, 1), w = random_floats(40 * 40, 2);
    Floats y(40 * 40);
    for (const Named& named : products_of(*kernels)) {
      named.product({.x = x.data(),
                     .dense = w.data(),
                     .y = y.data(),
                     .ldx = 40,
                     .ldw = 40,
                     .ldy = 40,
                     .m = 40,
                     .n = 40,
                     .k = 40});
      INFO(kernels->name << " " << named.name);
      CHECK(tiny * 0.5f != 0);
    }
  }
}
