// Products of few rows (few_rows.cu): near f64, and the same bits for a row whatever it shares a
// call with, in any order of threads and at any alignment.

#include <catch2/catch.hpp>
#include <cmath>

#include "core/base/half.h"
#include "kernels/cases/cases.h"
#include "kernels/cuda/emulated/schedules.h"
#include "kernels/quant/tables.h"

using namespace qlora;
using namespace qlora::test;
using emulated::test::for_every_schedule;

namespace {

struct Size {
  int64_t out, in, block;
};
// Among them: outputs that fill no block, fewer segments than warps, blocks over several rows.
const Size kSizes[] = {{5, 64, 64}, {40, 192, 64}, {33, 576, 64}, {50, 320, 128}, {18, 640, 4096}};

double as_bf16(double v) {
  return to_float(to_bf16(static_cast<float>(v)));
}

// Rows [lo, hi) of x times the weight, in the decode class; `start`: what y holds, which is then added to.
// `stored`: how a dense weight is, as f32 or as bf16.
Array product(Backend& backend, const TestWeight& w, Operands stored, const Array& x, int64_t lo, int64_t hi,
              int64_t offset = 0, const Array* start = nullptr) {
  test::Device d(backend, DType::f32, offset, stored);
  const int64_t rows = hi - lo;
  QGemm a{.w = w.view(d),
          .rows = rows,
          .mode = start != nullptr ? Write::accumulate : Write::overwrite,
          .operands = Operands::bf16,
          .numerics = Numerics::decode};
  a.x = d.put(Array(x.begin() + lo * w.in, x.begin() + hi * w.in));
  a.y = start != nullptr ? d.put(*start) : d.make(rows * w.out);
  backend.qgemm(a);
  return d.get(a.y, rows * w.out);
}

// Quantized weights, and dense ones of f32 and of bf16.
template <class Body>
void for_every_weight(Body&& body) {
  for (const Size& s : kSizes) {
    std::vector<TestWeight> all = {make_weight(3, Format::dense, false, s.out, s.in)};
    for (Format format : kFormats)
      for (bool double_quant : {false, true})
        all.push_back(make_weight(3, format, double_quant, s.out, s.in, s.block));
    for (const TestWeight& w : all)
      for (Operands stored : {Operands::as_stored, Operands::bf16}) {
        if (w.format != Format::dense && stored == Operands::bf16) continue;  // codes are codes
        INFO(w.name() << " " << s.out << " x " << s.in << ", blocks of " << s.block);
        body(w, stored);
      }
  }
}

}  // namespace

TEST_CASE("CUDA products of few rows: the sums of bf16 operands, to the rounding of f32") {
  auto backend = make_backend("cuda-emulated");
  for_every_weight([&](const TestWeight& w, Operands stored) {
    const int64_t rows = 19;
    const Array x = normals(21, rows * w.in), start(static_cast<size_t>(rows * w.out), 0.5);
    const Array y = product(*backend, w, stored, x, 0, rows, 0, &start);
    double worst = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t o = 0; o < w.out; ++o) {
        double sum = 0.5, size = 0.5;
        for (int64_t k = 0; k < w.in; ++k) {
          const double term = as_bf16(x[static_cast<size_t>(r * w.in + k)]) *
                              as_bf16(w.dense[static_cast<size_t>(o * w.in + k)]);
          sum += term;
          size += std::abs(term);
        }
        const double bound = 0x1p-23 * std::sqrt(static_cast<double>(w.in)) * size;
        worst = std::max(worst, std::abs(y[static_cast<size_t>(r * w.out + o)] - sum) / bound);
      }
    CHECK(worst < 1);
  });
}

TEST_CASE("CUDA products of few rows: a row has the same bits alone, among others and at any alignment") {
  auto backend = make_backend("cuda-emulated");
  for_every_weight([&](const TestWeight& w, Operands stored) {
    if (w.out > 40) return;
    const int64_t rows = 18;
    const Array x = normals(22, rows * w.in);
    const Array together = product(*backend, w, stored, x, 0, rows);
    for (auto [lo, hi] : {std::pair<int64_t, int64_t>{0, 1}, {15, 16}, {17, 18}, {3, 12}}) {
      INFO("rows " << lo << " to " << hi);
      const Array part(together.begin() + lo * w.out, together.begin() + hi * w.out);
      CHECK(same_bits(product(*backend, w, stored, x, lo, hi), part));
      CHECK(same_bits(product(*backend, w, stored, x, lo, hi, 1), part));
    }
  });
}

TEST_CASE("CUDA products of few rows: the same bits in any order of threads") {
  auto backend = make_backend("cuda-emulated");
  const Array x = normals(23, 3 * 576);
  for (Format format : {Format::nf4, Format::int8, Format::dense}) {
    const TestWeight w = make_weight(3, format, format != Format::dense, 33, 576);
    const Array first = product(*backend, w, Operands::bf16, x, 0, 3);
    for_every_schedule([&] { CHECK(same_bits(product(*backend, w, Operands::bf16, x, 0, 3), first)); });
  }
}

TEST_CASE("CUDA products of few rows: codes have the bits of the decoded matrix") {
  auto backend = make_backend("cuda-emulated");
  for (Format format : {Format::nf4, Format::int8}) {
    const TestWeight codes = make_weight(3, format, true, 33, 192),
                     decoded{.out = codes.out, .in = codes.in, .dense = codes.dense};
    const Array x = normals(24, 5 * codes.in);
    CHECK(same_bits(product(*backend, codes, Operands::as_stored, x, 0, 5),
                    product(*backend, decoded, Operands::as_stored, x, 0, 5)));
  }
}
