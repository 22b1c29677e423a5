// Cases of gemm, qgemm and dequantize.

#include <string>

#include "kernels/cases/cases.h"
#include "kernels/quant/formats.h"

namespace qlora::test {
namespace {

const char* name_of(Layout layout) {
  return layout == Layout::nt ? "nt" : layout == Layout::nn ? "nn" : "tn";
}
const char* name_of(Write mode) {
  return mode == Write::overwrite ? "overwrite" : "accumulate";
}

std::string sizes(int64_t a, int64_t b, int64_t c) {
  return std::to_string(a) + "x" + std::to_string(b) + "x" + std::to_string(c);
}

Case gemm_case(Layout layout, int64_t m, int64_t n, int64_t k, double alpha, Write mode) {
  Case c{.kernel = "gemm", .length = k};
  c.shape = std::string(name_of(layout)) + " " + sizes(m, n, k) + " " + name_of(mode);
  c.inputs = {normals(1, m * k), normals(2, n * k), normals(3, m * n)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* y = mode == Write::accumulate ? d.put(in[2]) : d.make(m * n);
    d.backend().gemm({.layout = layout,
                      .x = d.put(in[0]),
                      .w = d.put(in[1]),
                      .y = y,
                      .m = m,
                      .n = n,
                      .k = k,
                      .alpha = alpha,
                      .mode = mode,
                      .type = d.type(),
                      .operands = d.operands()});
    return {d.get(y, m * n)};
  };
  return c;
}

Case qgemm_case(const TestWeight& w, Layout layout, int64_t rows, Write mode,
                Numerics numerics = Numerics::exact) {
  int64_t k = layout == Layout::nt ? w.in : w.out, n = layout == Layout::nt ? w.out : w.in;
  Case c{.kernel = "qgemm", .length = k};
  c.shape = w.name() + " " + name_of(layout) + " " + sizes(rows, n, k) + " " + name_of(mode);
  c.inputs = {normals(1, rows * k), normals(2, rows * n), w.dense};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* y = mode == Write::accumulate ? d.put(in[1]) : d.make(rows * n);
    d.backend().qgemm({.layout = layout,
                       .x = d.put(in[0]),
                       .w = w.view(d, &in[2]),
                       .y = y,
                       .rows = rows,
                       .mode = mode,
                       .type = d.type(),
                       .operands = d.operands(),
                       .numerics = numerics});
    return {d.get(y, rows * n)};
  };
  return c;
}

// Products of token steps, from every kind of weight. GPUs have kernels of their own for them, of bf16
// operands and whole segments of 64; the last two have none.
std::vector<Case> decode_cases() {
  struct Size {
    int64_t out, in, block, rows;
  };
  const Size sizes[] = {{5, 64, 64, 1},     {33, 192, 64, 5}, {16, 576, 64, 16}, {18, 640, 4096, 19},
                        {40, 320, 128, 40}, {17, 100, 64, 3}, {24, 128, 32, 2}};
  std::vector<Case> all;
  for (const Size& s : sizes) {
    std::vector<TestWeight> stored = {make_weight(9, Format::dense, false, s.out, s.in),
                                      make_weight(9, Format::dense, false, s.out, s.in)};
    stored[1].wide = true;
    for (Format format : kFormats)
      stored.push_back(make_weight(9, format, format != Format::fp4, s.out, s.in, s.block));
    for (const TestWeight& w : stored) {
      const Write mode = s.rows % 2 == 0 ? Write::accumulate : Write::overwrite;
      Case c = qgemm_case(w, Layout::nt, s.rows, mode, Numerics::decode);
      c.shape += " decode bf16";
      c.operands = Operands::bf16;
      c.whole = {w.format == Format::dense ? 0 : error_in_whole_numbers(w, c.inputs[0])};
      all.push_back(std::move(c));
    }
  }
  return all;
}

Case dequantize_case(const TestWeight& w) {
  int64_t n = w.out * w.in;
  Case c{.kernel = "dequantize", .shape = w.name() + " " + sizes(w.out, w.in, 1), .inputs = {w.dense}};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* y = d.make(n);
    d.backend().dequantize({.w = w.view(d, &in[0]), .dst = y, .type = d.type()});
    return {d.get(y, n)};
  };
  return c;
}

}  // namespace

std::vector<Case> matmul_cases() {
  std::vector<Case> all, decoded;
  struct Size {
    int64_t m, n, k;
  };
  const Size shapes[] = {{1, 1, 1},      {0, 4, 4},     {1, 17, 5},    {3, 16, 64},
                         {7, 13, 33},    {33, 65, 129}, {64, 64, 64},  {70, 8, 576},
                         {16, 16, 1030}, {5, 300, 100}, {130, 96, 31}, {2, 1, 700}};
  for (Layout layout : {Layout::nt, Layout::nn, Layout::tn}) {
    for (const Size& s : shapes) {
      all.push_back(gemm_case(layout, s.m, s.n, s.k, 1, Write::overwrite));
      all.push_back(gemm_case(layout, s.m, s.n, s.k, 0.375, Write::accumulate));
    }
  }
  struct Weight {
    int64_t out, in, block, rows;
  };
  // Among them: blocks that straddle rows (in % block != 0), a last block cut short, an odd number of
  // elements.
  const Weight weights[] = {{16, 64, 64, 1},   {7, 96, 64, 5},  {33, 100, 64, 9},
                            {65, 130, 32, 34}, {5, 3, 64, 2},   {128, 576, 64, 40},
                            {40, 256, 128, 3}, {64, 64, 64, 0}, {96, 1100, 64, 17}};
  for (const Weight& s : weights) {
    std::vector<TestWeight> stored = {make_weight(9, Format::dense, false, s.out, s.in)};
    // Scales have both forms in the small ones; in the large ones, which take most of the time, the two take
    // turns.
    bool turn = s.out % 2 == 0;
    for (Format format : kFormats) {
      turn = !turn;
      for (bool dq : {false, true})
        if (s.out * s.in < 8192 || dq == turn)
          stored.push_back(make_weight(9, format, dq, s.out, s.in, s.block));
    }
    for (const TestWeight& w : stored) {
      for (Layout layout : {Layout::nt, Layout::nn}) {
        all.push_back(qgemm_case(w, layout, s.rows, Write::overwrite));
      }
      all.push_back(qgemm_case(w, s.rows % 2 == 0 ? Layout::nt : Layout::nn, s.rows, Write::accumulate));
      decoded.push_back(dequantize_case(w));
    }
  }
  all = with_bf16_operands(std::move(all));
  all.insert(all.end(), decoded.begin(), decoded.end());
  for (Case& c : decode_cases()) all.push_back(std::move(c));
  return all;
}

}  // namespace qlora::test
