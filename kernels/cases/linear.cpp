// Cases of the linear layer with its adapters.

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cases/cases.h"

namespace qlora::test {
namespace {

struct Part {
  int64_t lo, hi, rank;
  float dropout;
  double scale;
};

struct Shape {
  std::string name;
  int64_t rows, in;
  std::vector<int64_t> outs;  // one per term
  Format format;
  bool double_quant;
  std::vector<Part> parts;  // of every term; the rank of term t is rank + t
  bool bias;
  std::vector<int32_t> sequences;
  bool wants_dx = true;
  Write mode = Write::overwrite;
  Numerics numerics = Numerics::exact;  // of the forward pass; decode: it has no other
};

// The weights and parts of a shape, on the device.
struct Placed {
  std::vector<std::vector<LoraPart>> parts;
  std::vector<WeightView> weights;
};

std::vector<TestWeight> weights_of(const Shape& s) {
  std::vector<TestWeight> all;
  for (size_t t = 0; t < s.outs.size(); ++t) {
    all.push_back(make_weight(100 + t, s.format, s.double_quant, s.outs[t], s.in));
  }
  return all;
}

LoraPart part_of(const Part& p, size_t term) {
  LoraPart part{.lo = p.lo, .hi = p.hi, .rank = p.rank + static_cast<int64_t>(term), .scale = p.scale};
  part.dropout = {.p = p.dropout, .key = mix_seed(5, term * 10 + static_cast<size_t>(p.lo)), .step = 3};
  return part;
}

// What one flip of a rounding to bf16 is worth: a value's last bit times the largest that stands against it.
// Operands of the cases stay within five standard deviations.
double flip(double value, double against) {
  return 0x1p-8 * (5 * value) * (5 * against);
}

constexpr double kSmall = 0.2;  // the spread of adapters, of gradients before, and of u in backward

// The largest factor of dropout.
double factor_of(const Shape& s) {
  double factor = 1;
  for (const Part& p : s.parts) factor = std::max(factor, 1 / (1 - static_cast<double>(p.dropout)));
  return factor;
}

Case forward_case(const Shape& s) {
  Case c{.kernel = "linear", .shape = s.name, .length = s.in};
  std::vector<TestWeight> weights = weights_of(s);
  uint64_t seed = 1;
  c.inputs.push_back(normals(seed++, s.rows * s.in));
  for (size_t t = 0; t < weights.size(); ++t) {
    c.inputs.push_back(weights[t].dense);
    c.inputs.push_back(normals(seed++, s.outs[t]));
    for (const Part& p : s.parts) {
      int64_t rank = part_of(p, t).rank;
      c.inputs.push_back(normals(seed++, rank * s.in, kSmall));
      c.inputs.push_back(normals(seed++, s.outs[t] * rank, kSmall));
    }
  }
  // y reads u, which reads elements of x as they are.
  const double u = kSmall * factor_of(s) * std::sqrt(static_cast<double>(s.in));
  double largest_scale = 0;
  for (const Part& p : s.parts) largest_scale = std::max(largest_scale, p.scale);
  for (size_t t = 0; t < weights.size(); ++t) {
    c.flips.push_back(largest_scale * flip(u, kSmall));
    c.flips.resize(c.flips.size() + s.parts.size());
    if (s.numerics == Numerics::exact) continue;
    c.whole.push_back(s.format == Format::dense ? 0 : error_in_whole_numbers(weights[t], c.inputs[0]));
    c.whole.resize(c.flips.size());  // u is of the exact class
  }
  c.run = [s, weights](Device& d, const std::vector<Array>& in) {
    Next next(in);
    std::vector<RowKey> keys = row_keys(s.rows);
    const void* x = d.put(next());
    std::vector<std::vector<LoraPart>> parts(weights.size());
    std::vector<LinearTerm> terms;
    for (size_t t = 0; t < weights.size(); ++t) {
      LinearTerm term{.w = weights[t].view(d, &next())};
      const Array& bias = next();
      if (s.bias) term.bias = d.put(bias);
      for (const Part& p : s.parts) {
        LoraPart part = part_of(p, t);
        part.a = d.put(next());
        part.b = d.put(next());
        part.u = d.make((p.hi - p.lo) * part.rank);
        parts[t].push_back(part);
      }
      term.lora = parts[t];
      term.y = d.make(s.rows * s.outs[t]);
      terms.push_back(term);
    }
    d.backend().linear({.x = x,
                        .rows = s.rows,
                        .terms = terms,
                        .keys = keys.data(),
                        .type = d.type(),
                        .operands = d.operands(),
                        .numerics = s.numerics});
    std::vector<Array> results;
    for (size_t t = 0; t < terms.size(); ++t) {
      results.push_back(d.get(terms[t].y, s.rows * s.outs[t]));
      for (const LoraPart& p : parts[t]) results.push_back(d.get(p.u, (p.hi - p.lo) * p.rank));
    }
    return results;
  };
  return c;
}

Case backward_case(const Shape& s) {
  Case c{.kernel = "linear_backward", .shape = s.name};
  c.length = s.rows;
  for (int64_t out : s.outs) c.length += out;
  std::vector<TestWeight> weights = weights_of(s);
  uint64_t seed = 50;
  c.inputs.push_back(normals(seed++, s.rows * s.in));
  c.inputs.push_back(normals(seed++, s.rows * s.in));  // what dx holds before
  for (size_t t = 0; t < weights.size(); ++t) {
    c.inputs.push_back(weights[t].dense);
    c.inputs.push_back(normals(seed++, s.rows * s.outs[t]));
    for (const Part& p : s.parts) {
      int64_t rank = part_of(p, t).rank;
      for (int64_t n : {rank * s.in, s.outs[t] * rank, (p.hi - p.lo) * rank, rank * s.in, s.outs[t] * rank}) {
        c.inputs.push_back(normals(seed++, n, kSmall));
      }
    }
  }
  // dx and grad_a read du.
  double du = 0;
  for (int64_t out : s.outs)
    for (const Part& p : s.parts) du = std::max(du, p.scale * kSmall * std::sqrt(static_cast<double>(out)));
  if (s.wants_dx) c.flips.push_back(factor_of(s) * flip(du, kSmall));
  for (size_t i = 0; i < weights.size() * s.parts.size(); ++i) {
    c.flips.push_back(flip(du, factor_of(s)));
    c.flips.push_back(0);
  }
  c.run = [s, weights](Device& d, const std::vector<Array>& in) {
    Next next(in);
    std::vector<RowKey> keys = row_keys(s.rows);
    LinearBackward a{.x = d.put(next()), .rows = s.rows, .keys = keys.data(), .sequences = s.sequences};
    const Array& before = next();
    if (s.wants_dx) a.dx = s.mode == Write::accumulate ? d.put(before) : d.make(s.rows * s.in);
    a.mode = s.mode;
    a.type = a.x_type = d.type();
    a.operands = d.operands();
    std::vector<std::vector<LoraPart>> parts(weights.size());
    std::vector<LinearBackwardTerm> terms;
    for (size_t t = 0; t < weights.size(); ++t) {
      LinearBackwardTerm term{.w = weights[t].view(d, &next())};
      term.dy = d.put(next());
      for (const Part& p : s.parts) {
        LoraPart part = part_of(p, t);
        part.a = d.put(next());
        part.b = d.put(next());
        part.u = d.put(next());
        part.grad_a = d.put(next());
        part.grad_b = d.put(next());
        parts[t].push_back(part);
      }
      term.lora = parts[t];
      terms.push_back(term);
    }
    a.terms = terms;
    d.backend().linear_backward(a);
    std::vector<Array> results;
    if (s.wants_dx) results.push_back(d.get(a.dx, s.rows * s.in));
    for (size_t t = 0; t < terms.size(); ++t) {
      for (const LoraPart& p : parts[t]) {
        results.push_back(d.get(p.grad_a, p.rank * s.in));
        results.push_back(d.get(p.grad_b, s.outs[t] * p.rank));
      }
    }
    return results;
  };
  return c;
}

}  // namespace

std::vector<Case> linear_cases() {
  const Shape shapes[] = {
      {"plain dense, one row", 1, 33, {17}, Format::dense, false, {}, false, {0, 1}},
      {"no rows", 0, 16, {8}, Format::nf4, false, {}, true, {0}},
      {"dense with bias and one part",
       9,
       40,
       {24},
       Format::dense,
       false,
       {{0, 9, 4, 0, 0.5}},
       true,
       {0, 4, 9}},
      {"nf4, parts of ranks 1 and 8 with a gap",
       23,
       96,
       {30},
       Format::nf4,
       false,
       {{0, 7, 8, 0, 2}, {10, 23, 1, 0, 1}},
       false,
       {0, 1, 7, 10, 10, 23}},
      {"nf4+dq, three terms, dropout",
       37,
       130,
       {65, 16, 16},
       Format::nf4,
       true,
       {{0, 12, 4, 0.1f, 2}, {12, 13, 16, 0.5f, 0.25}, {13, 37, 8, 0, 1}},
       true,
       {0, 12, 13, 20, 37}},
      {"int8+dq, two terms, dropout",
       35,
       64,
       {48, 17},
       Format::int8,
       true,
       {{0, 11, 4, 0.1f, 2}, {11, 35, 8, 0, 1}},
       true,
       {0, 11, 20, 35}},
      {"many rows, int8, one run",
       68,
       96,
       {64, 20},
       Format::int8,
       false,
       {{0, 68, 8, 0, 0.5}},
       false,
       {0, 33, 68}},
      {"fp4, two terms, dx accumulated",
       18,
       70,
       {33, 40},
       Format::fp4,
       false,
       {{3, 18, 8, 0.25f, 1.5}},
       false,
       {0, 3, 18},
       true,
       Write::accumulate},
      {"dense, dx not wanted",
       11,
       50,
       {20},
       Format::dense,
       false,
       {{0, 11, 3, 0.1f, 1}},
       false,
       {0, 11},
       false},
      {"nf4, long rows",
       70,
       576,
       {192},
       Format::nf4,
       true,
       {{0, 35, 8, 0.1f, 2}, {35, 70, 16, 0.1f, 2}},
       false,
       {0, 20, 35, 70}},
      // More rows than a tile has, of one run: its adapter may join the products (cuda/many_rows.h).
      {"many rows, nf4+dq, one run",
       67,
       128,
       {64, 24},
       Format::nf4,
       true,
       {{0, 67, 8, 0, 0.25}},
       true,
       {0, 30, 67}},
      {"many rows, fp4, one run with dropout, dx accumulated",
       66,
       70,
       {33, 20, 9},
       Format::fp4,
       false,
       {{0, 66, 5, 0.1f, 2}},
       false,
       {0, 66},
       true,
       Write::accumulate},
      {"many rows, dense, one run of an odd scale, dx accumulated",
       65,
       43,
       {30},
       Format::dense,
       false,
       {{0, 65, 3, 0, 1.5}},
       true,
       {0, 65},
       true,
       Write::accumulate},
      {"a long sequence, nf4, dropout",
       257,
       24,
       {17},
       Format::nf4,
       false,
       {{0, 257, 4, 0.1f, 2}},
       false,
       {0, 257}},
      {"many rows, dense, no run", 80, 72, {40}, Format::dense, false, {}, false, {0, 80}},
      {"many rows, nf4, part of them a run's, dx not wanted",
       72,
       96,
       {40, 17},
       Format::nf4,
       false,
       {{3, 72, 8, 0, 0.5}},
       false,
       {0, 40, 72},
       false},
      {"a token step, nf4+dq, three terms, two runs",
       7,
       128,
       {33, 16, 16},
       Format::nf4,
       true,
       {{0, 3, 8, 0, 2}, {3, 7, 4, 0, 1}},
       true,
       {},
       false,
       Write::overwrite,
       Numerics::decode},
      {"a token step, dense, one run",
       18,
       64,
       {40},
       Format::dense,
       false,
       {{0, 18, 3, 0, 0.5}},
       false,
       {},
       false,
       Write::overwrite,
       Numerics::decode},
  };
  std::vector<Case> all;
  for (const Shape& s : shapes) {
    all.push_back(forward_case(s));
    if (s.numerics == Numerics::exact) all.push_back(backward_case(s));
  }
  return with_bf16_operands(std::move(all));
}

}  // namespace qlora::test
