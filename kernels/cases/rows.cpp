// Cases of norms, rotary embedding, activations, sums and row movements.

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

Case rope_case(int64_t rows, int64_t heads, int64_t head_dim, bool inverse, Write mode, bool in_place) {
  int64_t n = rows * heads * head_dim, half = rows * head_dim / 2;
  Case c{.kernel = "rope"};
  c.shape = sizes(rows, heads) + "x" + std::to_string(head_dim) + name_of(mode) +
            (inverse ? " inverse" : "") + (in_place ? " in place" : "");
  c.inputs = {normals(1, n), normals(2, half), normals(3, half), normals(4, n)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* x = d.put(in[0]);
    void* y = in_place ? x : destination(d, in[3], mode);
    d.backend().rope({.x = x,
                      .y = y,
                      .cos = d.put(in[1]),
                      .sin = d.put(in[2]),
                      .rows = rows,
                      .heads = heads,
                      .head_dim = head_dim,
                      .inverse = inverse,
                      .mode = mode,
                      .type = d.type()});
    return {d.get(y, n)};
  };
  return c;
}

// Gates reach far into both saturated ends.
Case swiglu_case(int64_t n) {
  Case c{.kernel = "swiglu", .shape = std::to_string(n), .inputs = {normals(1, n, 6), normals(2, n)}};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* y = d.make(n);
    d.backend().swiglu({.gate = d.put(in[0]), .up = d.put(in[1]), .y = y, .n = n, .type = d.type()});
    return {d.get(y, n)};
  };
  return c;
}

Case swiglu_backward_case(int64_t n, Write gate_mode, Write up_mode, bool wants_gate, bool wants_up) {
  Case c{.kernel = "swiglu_backward"};
  c.shape = std::to_string(n) + name_of(gate_mode) + name_of(up_mode) + (wants_gate ? "" : " without dgate") +
            (wants_up ? "" : " without dup");
  c.inputs = {normals(1, n, 3), normals(2, n), normals(3, n), normals(4, n), normals(5, n)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* dgate = wants_gate ? destination(d, in[3], gate_mode) : nullptr;
    void* dup = wants_up ? destination(d, in[4], up_mode) : nullptr;
    d.backend().swiglu_backward({.dy = d.put(in[2]),
                                 .gate = d.put(in[0]),
                                 .up = d.put(in[1]),
                                 .dgate = dgate,
                                 .dup = dup,
                                 .n = n,
                                 .gate_mode = gate_mode,
                                 .up_mode = up_mode,
                                 .type = d.type()});
    std::vector<Array> results;
    if (wants_gate) results.push_back(d.get(dgate, n));
    if (wants_up) results.push_back(d.get(dup, n));
    return results;
  };
  // 1 + g (1 - s) crosses zero.
  c.cancels = Array(static_cast<size_t>(wants_gate) + static_cast<size_t>(wants_up), 1.0);
  return c;
}

Case add_case(int64_t n, bool in_place) {
  Case c{.kernel = "add", .shape = std::to_string(n) + (in_place ? " in place" : "")};
  c.inputs = {normals(1, n), normals(2, n)};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* b = d.put(in[1]);
    void* y = in_place ? b : d.make(n);
    d.backend().add({.a = d.put(in[0]), .b = b, .y = y, .n = n, .type = d.type()});
    return {d.get(y, n)};
  };
  return c;
}

Case gather_case(std::vector<int32_t> ids, int64_t total, int64_t cols, bool narrow = false) {
  auto rows = static_cast<int64_t>(ids.size());
  Case c{.kernel = "gather_rows",
         .shape = sizes(rows, cols) + (narrow ? " bf16" : ""),
         .inputs = {normals(1, total * cols)}};
  c.run = [=](Device& d, const std::vector<Array>& in) -> std::vector<Array> {
    void* y = d.make(rows * cols);
    d.backend().gather_rows({.table = narrow ? d.put_bf16(in[0]) : d.put(in[0]),
                             .ids = ids.data(),
                             .y = y,
                             .rows = rows,
                             .cols = cols,
                             .type = d.type(),
                             .table_type = narrow ? DType::bf16 : d.type()});
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

}  // namespace

std::vector<Case> row_cases() {
  std::vector<Case> all;
  for (auto [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {0, 16}, {70, 576}, {33, 1031}}) {
    for (bool of_sum : {false, true}) all.push_back(norm_case(rows, cols, rows != 3, of_sum));
    for (Write mode : kModes) all.push_back(norm_backward_case(rows, cols, mode, false));
    all.push_back(norm_backward_case(rows, cols, Write::overwrite, true));
  }
  for (auto [rows, half] : {std::pair<int64_t, int64_t>{1, 1}, {45, 32}, {7, 40}}) {
    all.push_back(rope_table_case(rows, half));
  }
  for (int64_t head_dim : {2, 16, 64, 80, 96}) {
    all.push_back(rope_case(5, 3, head_dim, false, Write::overwrite, false));
    all.push_back(rope_case(70, 9, head_dim, true, Write::overwrite, true));
    all.push_back(rope_case(9, 2, head_dim, true, Write::accumulate, false));
  }
  for (int64_t n : {0, 1, 31, 1000, 20011}) {
    all.push_back(swiglu_case(n));
    for (Write gate : kModes) {
      for (Write up : kModes) all.push_back(swiglu_backward_case(n, gate, up, true, true));
    }
    all.push_back(add_case(n, false));
    all.push_back(add_case(n, true));
  }
  all.push_back(swiglu_backward_case(100, Write::overwrite, Write::accumulate, false, true));
  all.push_back(swiglu_backward_case(100, Write::accumulate, Write::overwrite, true, false));
  all.push_back(add_case(70001, false));
  all.push_back(gather_case({3, 0, 3, 6, 1}, 7, 33));
  all.push_back(gather_case({3, 0, 3, 6, 1}, 7, 33, true));
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
