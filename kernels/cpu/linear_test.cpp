// The linear layer whose adapters run together and add to finished tiles has the bits of the products that it
// is made of, called one by one.

#include "kernels/cpu/linear.h"

#include <catch2/catch.hpp>
#include <cstring>

#include "core/base/parallel.h"
#include "kernels/cases/cases.h"

using namespace qlora;
using namespace qlora::test;

namespace {

constexpr int64_t kRows = 97, kIn = 330, kOut = 70;

// Parts that share tiles of rows, leave some out, and have ranks around what tiles and chunks hold.
struct Part {
  int64_t lo, hi, rank;
  double scale;
};
constexpr Part kParts[] = {{0, 31, 8, 2}, {31, 32, 1, 0.5}, {32, 58, 16, 1.5}, {60, 97, 65, 0.25}};
const std::vector<int32_t> kSequences = {0, 5, 31, 32, 50, 58, 60, 96, 97};

struct Problem {
  Array x = normals(1, kRows*kIn), dy = normals(2, kRows*kOut);
  TestWeight w = make_weight(3, Format::nf4, true, kOut, kIn);
  std::vector<Array> a, b;
  int64_t more_rank = 0;  // of the last part
  explicit Problem(int64_t more) : more_rank(more) {
    for (size_t i = 0; i < std::size(kParts); ++i) {
      a.push_back(normals(10 + i, rank(i) * kIn, 0.3));
      b.push_back(normals(20 + i, rank(i) * kOut, 0.3));
    }
  }
  int64_t rank(size_t part) const {
    return kParts[part].rank + (part + 1 == std::size(kParts) ? more_rank : 0);
  }
};

// All operands on a device, and what both ways of computing write.
struct Placed {
  Device& d;
  const float *x, *dy;
  WeightView w;
  std::vector<LoraPart> parts;
  float *y, *dx;
  Placed(Device& device, const Problem& p) : d(device) {
    x = static_cast<float*>(d.put(p.x));
    dy = static_cast<float*>(d.put(p.dy));
    w = p.w.view(d);
    y = static_cast<float*>(d.make(kRows * kOut));
    dx = static_cast<float*>(d.make(kRows * kIn));
    for (size_t i = 0; i < std::size(kParts); ++i) {
      const Part& part = kParts[i];
      const int64_t rank = p.rank(i);
      parts.push_back({.lo = part.lo,
                       .hi = part.hi,
                       .a = d.put(p.a[i]),
                       .b = d.put(p.b[i]),
                       .rank = rank,
                       .scale = part.scale,
                       .u = d.make((part.hi - part.lo) * rank),
                       .grad_a = d.put(Array(static_cast<size_t>(rank * kIn), 0.5)),
                       .grad_b = d.put(Array(static_cast<size_t>(rank * kOut), 0.5))});
    }
  }
  std::vector<Array> results() const {
    std::vector<Array> all = {d.get(y, kRows * kOut), d.get(dx, kRows * kIn)};
    for (const LoraPart& p : parts) {
      all.push_back(d.get(p.u, (p.hi - p.lo) * p.rank));
      all.push_back(d.get(p.grad_a, p.rank * kIn));
      all.push_back(d.get(p.grad_b, p.rank * kOut));
    }
    return all;
  }
};

std::vector<Array> together(Backend& backend, const Problem& p, Operands operands) {
  Device d(backend, DType::f32, 0, operands);
  Placed at(d, p);
  LinearTerm term{.w = at.w, .lora = at.parts, .y = at.y};
  backend.linear({.x = at.x, .rows = kRows, .terms = {&term, 1}, .operands = operands});
  LinearBackwardTerm back{.w = at.w, .lora = at.parts, .dy = at.dy};
  backend.linear_backward({.x = at.x,
                           .rows = kRows,
                           .terms = {&back, 1},
                           .sequences = kSequences,
                           .dx = at.dx,
                           .operands = operands});
  d.check_guards();
  return at.results();
}

std::vector<Array> one_by_one(Backend& backend, const Problem& p, Operands operands) {
  Device d(backend, DType::f32, 0, operands);
  Placed at(d, p);
  const Write add = Write::accumulate;
  QGemm base{.x = at.x, .w = at.w, .y = at.y, .rows = kRows, .operands = operands};
  backend.qgemm(base);
  base.layout = Layout::nn;
  base.x = at.dy;
  base.y = at.dx;
  backend.qgemm(base);
  auto gemm = [&](Layout layout, const void* x, const void* w, void* y, int64_t m, int64_t n, int64_t k,
                  double alpha, Write mode) {
    Gemm g{.layout = layout, .x = x, .w = w, .y = y, .m = m, .n = n, .k = k, .alpha = alpha, .mode = mode};
    g.operands = operands;
    backend.gemm(g);
  };
  for (const LoraPart& part : at.parts) {
    const int64_t rows = part.hi - part.lo, rank = part.rank;
    const float *x = at.x + part.lo * kIn, *dy = at.dy + part.lo * kOut;
    gemm(Layout::nt, x, part.a, part.u, rows, rank, kIn, 1, Write::overwrite);
    gemm(Layout::nt, part.u, part.b, at.y + part.lo * kOut, rows, kOut, rank, part.scale, add);
    auto* du = static_cast<float*>(d.make(rows * rank));
    const auto* u = static_cast<const float*>(part.u);
    gemm(Layout::nn, dy, part.b, du, rows, rank, kOut, part.scale, Write::overwrite);
    for (size_t s = 0; s + 1 < kSequences.size(); ++s) {
      const int64_t lo = std::max<int64_t>(kSequences[s], part.lo) - part.lo;
      const int64_t hi = std::min<int64_t>(kSequences[s + 1], part.hi) - part.lo;
      if (hi <= lo) continue;
      gemm(Layout::tn, dy + lo * kOut, u + lo * rank, part.grad_b, kOut, rank, hi - lo, part.scale, add);
      gemm(Layout::tn, du + lo * rank, x + lo * kIn, part.grad_a, rank, kIn, hi - lo, 1, add);
    }
    gemm(Layout::nn, du, part.a, at.dx + part.lo * kIn, rows, kIn, rank, 1, add);
  }
  return at.results();
}

}  // namespace

TEST_CASE(
    "A layer of which only the last weight has an adapter has the bits of its weights one by one, at few "
    "rows too") {
  constexpr int64_t kWidth = 192, kLong = 64, kRank = 8;
  const Array a = normals(4, kRank * kWidth, 0.3), b = normals(5, kLong * kRank, 0.3);
  const TestWeight w[] = {make_weight(6, Format::nf4, true, kLong, kWidth, 64),
                          make_weight(9, Format::nf4, true, kLong, kWidth, 64),
                          make_weight(10, Format::int8, true, kLong, kWidth, 64),
                          make_weight(7, Format::nf4, true, kLong, kWidth, 64)};
  for (const std::string& name : available_backends()) {
    auto backend = make_test_backend(name);
    if (!backend->host_memory()) continue;
    for (Operands operands : kAllOperands)
      for (int64_t rows : {7, 9, 12, 16, 17, 32, 33, 40}) {
        Device d(*backend, DType::f32, 0, operands);
        void* x = d.put(normals(8, rows * kWidth));
        LoraPart part{.lo = 0, .hi = rows, .a = d.put(a), .b = d.put(b), .rank = kRank, .scale = 0.5};
        part.u = d.make(rows * kRank);
        LinearTerm terms[4] = {
            {.w = w[0].view(d)}, {.w = w[1].view(d)}, {.w = w[2].view(d)}, {.w = w[3].view(d)}};
        terms[3].lora = {&part, 1};
        const auto results = [&](size_t terms_of_a_call) {
          for (LinearTerm& term : terms) term.y = d.make(rows * kLong);
          for (size_t i = 0; i < std::size(terms); i += terms_of_a_call)
            backend->linear(
                {.x = x, .rows = rows, .terms = {terms + i, terms_of_a_call}, .operands = operands});
          std::vector<Array> all;
          for (const LinearTerm& term : terms) all.push_back(d.get(term.y, rows * kLong));
          return all;
        };
        INFO(name << " " << name_of(operands) << ", " << rows << " rows");
        const auto together = results(std::size(terms)), each = results(1);
        for (size_t i = 0; i < std::size(terms); ++i) CHECK(same_bits(together[i], each[i]));
      }
  }
}

TEST_CASE(
    "An adapter of all rows shares them with its weight beyond what is packed at a time, with the same "
    "bits") {
  constexpr int64_t kLong = 4160, kShort = 40, kManyRows = 35, kRank = 9;
  const Array a = normals(4, kRank * kLong, 0.3), b = normals(5, kShort * kRank, 0.3);
  const TestWeight w = make_weight(6, Format::nf4, true, kShort, kLong, 64);
  for (const std::string& name : available_backends()) {
    auto backend = make_test_backend(name);
    if (name == "reference" || !backend->host_memory()) continue;
    const Operands operands = Operands::bf16_amx;
    Device d(*backend, DType::f32, 0, operands);
    void* x = d.put(normals(8, kManyRows * kLong));
    LoraPart part{.lo = 0, .hi = kManyRows, .a = d.put(a), .b = d.put(b), .rank = kRank, .scale = 0.5};
    part.u = d.make(kManyRows * kRank);
    LinearTerm term{.w = w.view(d), .lora = {&part, 1}, .y = d.make(kManyRows * kShort)};
    backend->linear({.x = x, .rows = kManyRows, .terms = {&term, 1}, .operands = operands});
    void *u = d.make(kManyRows * kRank), *y = d.make(kManyRows * kShort);
    backend->qgemm({.x = x, .w = term.w, .y = y, .rows = kManyRows, .operands = operands});
    Gemm low{.x = x, .w = part.a, .y = u, .m = kManyRows, .n = kRank, .k = kLong, .operands = operands};
    backend->gemm(low);
    backend->gemm({.x = u,
                   .w = part.b,
                   .y = y,
                   .m = kManyRows,
                   .n = kShort,
                   .k = kRank,
                   .alpha = 0.5,
                   .mode = Write::accumulate,
                   .operands = operands});
    INFO(name);
    CHECK(same_bits(d.get(part.u, kManyRows * kRank), d.get(u, kManyRows * kRank)));
    CHECK(same_bits(d.get(term.y, kManyRows * kShort), d.get(y, kManyRows * kShort)));
  }
}

TEST_CASE("Adapters that run together give the bits of their products one by one") {
  const int before = thread_count();
  for (const std::string& name : available_backends()) {
    if (name == "reference") continue;
    auto backend = make_test_backend(name);
    if (!backend->host_memory())
      continue;  // on a GPU an adapter's part is inside the product's sum (many_rows.h)
    for (Operands operands : kAllOperands) {
      for (int64_t more_rank : {0, 300}) {
        const Problem p(more_rank);
        const std::vector<Array> expected = one_by_one(*backend, p, operands);
        for (int threads : {1, 3}) {
          set_thread_count(threads);
          const std::vector<Array> got = together(*backend, p, operands);
          for (size_t i = 0; i < got.size(); ++i) {
            INFO(name << ", result " << i << ", " << threads << " threads, rank + " << more_rank << ", "
                      << name_of(operands));
            CHECK(same_bits(got[i], expected[i]));
          }
        }
      }
    }
  }
  set_thread_count(before);
}
