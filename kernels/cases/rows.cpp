// Cases of norms, rotary embedding and row movements.

#include <cmath>
#include <string>

#include "kernels/cases/cases.h"

namespace qlora::test {
namespace {

const char* name_of(Write mode) {
  return mode == Write::overwrite ? " overwrite" : " accumulate";
}
std::string sizes(int64_t a, int64_t b) {
  return std::to_string(a) + "x" + std::to_string(b);
}

constexpr Write kModes[] = {Write::overwrite, Write::accumulate};

// A destination that holds something when the kernel adds to it.
void* destination(Device& d, const Array& before, Write mode) {
  return mode == Write::accumulate ? d.put(before) : d.make(static_cast<int64_t>(before.size()));
}

Case norm_case(int64_t rows, int64_t cols, bool keeps, bool of_sum) {
  Case c{.kernel = "rms_norm", .shape = sizes(rows, cols) + (keeps ? "" : " without rstd"), .length = cols};
  if (of_sum) c.shape += " of a sum";
  c.inputs = {normals(1, rows * cols), normals(2, cols), normals(3, rows * cols)};
  if (of_sum) c.cancels = {1, 0, 1};  // elements of the sum may be small
  if (of_sum && !keeps) c.cancels = {1, 1};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void *y = d.make(rows * cols), *rstd = keeps ? d.make(rows) : nullptr;
    void* sum = of_sum ? d.make(rows * cols) : nullptr;
    d.backend().rms_norm({.x = d.put(in[0]),
                          .residual = of_sum ? d.put(in[2]) : nullptr,
                          .sum = sum,
                          .w = d.put(in[1]),
                          .y = y,
                          .rstd = rstd,
                          .rows = rows,
                          .cols = cols,
                          .eps = 1e-5,
                          .type = d.type()});
    std::vector<Array> results = {d.get(y, rows * cols)};
    if (keeps) results.push_back(d.get(rstd, rows));
    if (of_sum) results.push_back(d.get(sum, rows * cols));
    return results;
  };
  return c;
}

Case norm_backward_case(int64_t rows, int64_t cols, Write mode, bool beside) {
  int64_t n = rows * cols;
  Case c{.kernel = "rms_norm_backward", .shape = sizes(rows, cols) + name_of(mode), .length = cols};
  Array x = normals(1, n), rstd;
  for (int64_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (int64_t i = r * cols; i < (r + 1) * cols; ++i) {
      squares += x[static_cast<size_t>(i)] * x[static_cast<size_t>(i)];
    }
    rstd.push_back(
        static_cast<double>(static_cast<float>(1 / std::sqrt(squares / static_cast<double>(cols)))));
  }
  if (beside) c.shape += " beside another";
  c.inputs = {x, normals(2, cols), normals(3, n), rstd, normals(4, n)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* dx = destination(d, in[4], mode);
    d.backend().rms_norm_backward({.dy = d.put(in[2]),
                                   .x = d.put(in[0]),
                                   .w = d.put(in[1]),
                                   .rstd = d.put(in[3]),
                                   .beside = beside ? d.put(in[4]) : nullptr,
                                   .dx = dx,
                                   .rows = rows,
                                   .cols = cols,
                                   .mode = mode,
                                   .type = d.type()});
    return {d.get(dx, n)};
  };
  return c;
}

// The mean and 1 / sqrt(mean square + eps) of every row of x, as f32.
std::pair<Array, Array> moments(const Array& x, int64_t rows, int64_t cols, double eps) {
  Array means, rstds;
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0, squares = 0;
    for (int64_t i = r * cols; i < (r + 1) * cols; ++i) sum += x[static_cast<size_t>(i)];
    const double mean = sum / static_cast<double>(cols);
    for (int64_t i = r * cols; i < (r + 1) * cols; ++i)
      squares += std::pow(x[static_cast<size_t>(i)] - mean, 2);
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
    means.push_back(static_cast<double>(static_cast<float>(mean)));
    rstds.push_back(static_cast<double>(static_cast<float>(rstd)));
  }
  return {means, rstds};
}

// Rows lie about 3, so that the mean matters.
Array off_center(uint64_t seed, int64_t n) {
  Array x = normals(seed, n);
  for (double& v : x) v = static_cast<double>(static_cast<float>(v + 3));
  return x;
}

Case layer_norm_case(int64_t rows, int64_t cols, bool keeps, bool biased, bool of_sum) {
  const int64_t n = rows * cols;
  Case c{.kernel = "layer_norm", .shape = sizes(rows, cols), .length = cols};
  c.shape += std::string(keeps ? "" : " without mean and rstd") + (biased ? "" : " without bias") +
             (of_sum ? " of a sum" : "");
  c.inputs = {off_center(1, n), normals(2, cols), normals(3, cols), normals(4, n)};
  // What is left of x beside the mean, and of that beside the bias, may be small.
  c.cancels = {4};
  if (keeps) c.cancels = {4, 0, 0};
  if (of_sum) c.cancels.push_back(1);
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void *y = d.make(n), *sum = of_sum ? d.make(n) : nullptr;
    void *mean = keeps ? d.make(rows) : nullptr, *rstd = keeps ? d.make(rows) : nullptr;
    d.backend().layer_norm({.x = d.put(in[0]),
                            .residual = of_sum ? d.put(in[3]) : nullptr,
                            .sum = sum,
                            .w = d.put(in[1]),
                            .bias = biased ? d.put(in[2]) : nullptr,
                            .y = y,
                            .mean = mean,
                            .rstd = rstd,
                            .rows = rows,
                            .cols = cols,
                            .eps = 1e-3,
                            .type = d.type()});
    std::vector<Array> results = {d.get(y, n)};
    if (keeps) results.push_back(d.get(mean, rows));
    if (keeps) results.push_back(d.get(rstd, rows));
    if (of_sum) results.push_back(d.get(sum, n));
    return results;
  };
  return c;
}

Case layer_norm_backward_case(int64_t rows, int64_t cols, Write mode, bool beside) {
  const int64_t n = rows * cols;
  Case c{.kernel = "layer_norm_backward", .shape = sizes(rows, cols) + name_of(mode), .length = cols};
  if (beside) c.shape += " beside another";
  const Array x = off_center(1, n);
  auto [means, rstds] = moments(x, rows, cols, 1e-3);
  c.inputs = {x, normals(2, cols), normals(3, n), means, rstds, normals(4, n)};
  c.cancels = {8};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* dx = destination(d, in[5], mode);
    d.backend().layer_norm_backward({.dy = d.put(in[2]),
                                     .x = d.put(in[0]),
                                     .w = d.put(in[1]),
                                     .mean = d.put(in[3]),
                                     .rstd = d.put(in[4]),
                                     .beside = beside ? d.put(in[5]) : nullptr,
                                     .dx = dx,
                                     .rows = rows,
                                     .cols = cols,
                                     .mode = mode,
                                     .type = d.type()});
    return {d.get(dx, n)};
  };
  return c;
}

Case rope_table_case(int64_t rows, int64_t half) {
  Case c{.kernel = "rope_table", .shape = sizes(rows, half)};
  Array frequencies;
  for (int64_t j = 0; j < half; ++j) {
    double f = std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(half));
    frequencies.push_back(static_cast<double>(static_cast<float>(f)));
  }
  c.inputs = {frequencies};
  // In f32 the angle itself is rounded, by as much as a perturbed frequency moves it; small results come from
  // angles near a zero of the function.
  c.cancels = {1, 1};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    std::vector<int32_t> positions;
    for (int64_t r = 0; r < rows; ++r) positions.push_back(static_cast<int32_t>(r * r));
    std::vector<float> frequency(in[0].begin(), in[0].end());
    void *cos = d.make(rows * half), *sin = d.make(rows * half);
    d.backend().rope_table({.positions = positions.data(),
                            .inv_freq = frequency.data(),
                            .cos = cos,
                            .sin = sin,
                            .rows = rows,
                            .half = half,
                            .attention_scale = 1.25,
                            .type = d.type()});
    return {d.get(cos, rows * half), d.get(sin, rows * half)};
  };
  return c;
}

struct Turn {
  int64_t rows, heads, head_dim;
  int64_t rotary_dim = 0;
  bool inverse = false;
  Write mode = Write::overwrite;
  bool in_place = false;
};

Case rope_case(const Turn& t) {
  const int64_t n = t.rows * t.heads * t.head_dim, rotary = t.rotary_dim > 0 ? t.rotary_dim : t.head_dim;
  const int64_t half = t.rows * rotary / 2;
  Case c{.kernel = "rope"};
  c.shape = sizes(t.rows, t.heads) + "x" + std::to_string(t.head_dim) + name_of(t.mode) +
            (t.inverse ? " inverse" : "") + (t.in_place ? " in place" : "");
  if (t.rotary_dim > 0) c.shape += " of the first " + std::to_string(t.rotary_dim);
  c.inputs = {normals(1, n), normals(2, half), normals(3, half), normals(4, n)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* x = d.put(in[0]);
    void* y = t.in_place ? x : destination(d, in[3], t.mode);
    d.backend().rope({.x = x,
                      .y = y,
                      .cos = d.put(in[1]),
                      .sin = d.put(in[2]),
                      .rows = t.rows,
                      .heads = t.heads,
                      .head_dim = t.head_dim,
                      .rotary_dim = t.rotary_dim,
                      .inverse = t.inverse,
                      .mode = t.mode,
                      .type = d.type()});
    return {d.get(y, n)};
  };
  return c;
}

Case gather_case(std::vector<int32_t> ids, int64_t total, int64_t cols, bool narrow = false,
                 float scale = 1) {
  auto rows = static_cast<int64_t>(ids.size());
  Case c{.kernel = "gather_rows",
         .shape = sizes(rows, cols) + (narrow ? " bf16" : "") + (scale == 1 ? "" : " scaled"),
         .inputs = {normals(1, total * cols)}};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* y = d.make(rows * cols);
    d.backend().gather_rows({.table = narrow ? d.put_bf16(in[0]) : d.put(in[0]),
                             .ids = ids.data(),
                             .y = y,
                             .rows = rows,
                             .cols = cols,
                             .type = d.type(),
                             .table_type = narrow ? DType::bf16 : d.type(),
                             .scale = scale});
    return {d.get(y, rows * cols)};
  };
  return c;
}

Case scatter_case(std::vector<int32_t> ids, int64_t total, int64_t cols, Write mode) {
  auto rows = static_cast<int64_t>(ids.size());
  Case c{.kernel = "scatter_rows", .shape = sizes(rows, cols) + name_of(mode)};
  c.inputs = {normals(1, rows * cols), normals(2, total * cols)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* y = destination(d, in[1], mode);
    d.backend().scatter_rows({.x = d.put(in[0]),
                              .ids = ids.data(),
                              .y = y,
                              .rows = rows,
                              .cols = cols,
                              .total = total,
                              .mode = mode,
                              .type = d.type()});
    return {d.get(y, total * cols)};
  };
  return c;
}

// Columns [first, first + cols) of rows of `wide` elements; out of them, or into them.
Case columns_case(int64_t rows, int64_t wide, int64_t first, int64_t cols, bool out_of, Write mode) {
  Case c{
      .kernel = "copy_columns",
      .shape = sizes(rows, cols) + (out_of ? " out of " : " into ") + std::to_string(wide) + name_of(mode)};
  c.inputs = {normals(1, rows * (out_of ? wide : cols)), normals(2, rows * (out_of ? cols : wide))};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void *x = d.put(in[0]), *y = out_of ? destination(d, in[1], mode) : d.put(in[1]);
    const size_t before = static_cast<size_t>(first) * size_of(d.type());
    d.backend().copy_columns({.x = static_cast<std::byte*>(x) + (out_of ? before : 0),
                              .y = static_cast<std::byte*>(y) + (out_of ? 0 : before),
                              .rows = rows,
                              .cols = cols,
                              .x_stride = out_of ? wide : cols,
                              .y_stride = out_of ? cols : wide,
                              .mode = mode,
                              .type = d.type()});
    return {d.get(y, static_cast<int64_t>(in[1].size()))};
  };
  return c;
}

}  // namespace

std::vector<Case> row_cases() {
  std::vector<Case> all;
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {0, 16}, {70, 576}, {33, 1031}}) {
    for (bool of_sum : {false, true}) all.push_back(norm_case(rows, cols, rows != 3, of_sum));
    for (Write mode : kModes) all.push_back(norm_backward_case(rows, cols, mode, false));
    all.push_back(norm_backward_case(rows, cols, Write::overwrite, true));
    for (bool of_sum : {false, true})
      all.push_back(layer_norm_case(rows, cols, rows != 3, rows != 33, of_sum));
    for (Write mode : kModes) all.push_back(layer_norm_backward_case(rows, cols, mode, false));
    all.push_back(layer_norm_backward_case(rows, cols, Write::overwrite, true));
  }
  for (auto [rows, half] : {std::pair<int64_t, int64_t>{1, 1}, {45, 32}, {7, 40}}) {
    all.push_back(rope_table_case(rows, half));
  }
  for (int64_t head_dim : {2, 16, 64, 80, 96}) {
    all.push_back(rope_case({5, 3, head_dim}));
    all.push_back(rope_case({70, 9, head_dim, 0, true, Write::overwrite, true}));
    all.push_back(rope_case({9, 2, head_dim, 0, true, Write::accumulate}));
  }
  for (auto [head_dim, rotary] : {std::pair<int64_t, int64_t>{16, 4}, {64, 16}, {80, 32}, {96, 94}}) {
    all.push_back(rope_case({70, 3, head_dim, rotary, true}));
    all.push_back(rope_case({5, 2, head_dim, rotary, false, Write::overwrite, true}));
    all.push_back(rope_case({9, 2, head_dim, rotary, true, Write::accumulate}));
  }
  for (Write mode : kModes)
    for (bool out_of : {false, true}) {
      all.push_back(columns_case(7, 50, 13, 21, out_of, mode));
      all.push_back(columns_case(300, 192, 64, 64, out_of, mode));
      all.push_back(columns_case(0, 4, 1, 2, out_of, mode));
      all.push_back(columns_case(3, 1, 0, 1, out_of, mode));
    }
  all.push_back(gather_case({3, 0, 3, 6, 1}, 7, 33));
  all.push_back(gather_case({3, 0, 3, 6, 1}, 7, 33, true));
  for (bool narrow : {false, true}) all.push_back(gather_case({3, 0, 3}, 4, 33, narrow, 6.928203f));
  all.push_back(gather_case({}, 2, 8));
  all.push_back(gather_case(std::vector<int32_t>(300, 1), 2, 576));
  for (Write mode : kModes) {
    all.push_back(scatter_case({5, 0, 2}, 7, 19, mode));
    all.push_back(scatter_case({}, 3, 8, mode));
    all.push_back(scatter_case({1}, 2, 1, mode));
  }
  return all;
}

}  // namespace qlora::test
