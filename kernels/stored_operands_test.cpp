// Operands that are stored once as products read them (Operands in args_matmul.h): kernels that make them
// round what they make otherwise, and no bit of a product depends on how its operands are stored.

#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <iterator>
#include <memory>
#include <vector>

#include "core/base/half.h"
#include "kernels/cases/cases.h"

using namespace qlora;
using namespace qlora::test;

namespace {

std::vector<std::unique_ptr<Backend>> storing_backends() {
  std::vector<std::unique_ptr<Backend>> all;
  for (const std::string& name : available_backends())
    if (auto backend = make_test_backend(name); backend->stores_operands()) all.push_back(std::move(backend));
  return all;
}

// The values, as f32 or as a stored operand.
void* put(Device& d, const Array& values, DType type) {
  if (type == DType::f32) return d.put(values);
  std::vector<bf16> rounded;
  for (double v : values) rounded.push_back(to_operand(static_cast<float>(v)));
  return d.put_raw(rounded);
}

// Values with zeros, denormals, an infinity and a NaN among them.
Array odd_values(uint64_t seed, int64_t n) {
  Array values = normals(seed, n);
  const double odd[] = {0, 1e-39, -1e-39, 1e-45, HUGE_VAL, NAN};
  for (size_t i = 0; i < std::size(odd) && 7 * i < values.size(); ++i)
    values[7 * i] = static_cast<double>(static_cast<float>(odd[i]));
  return values;
}

// write(y, its type) makes n results; those that are stored are the others rounded.
template <class Write>
void check_stored(Device& d, int64_t n, const Write& write) {
  void *plain = d.make(n), *narrow = d.make(n);
  write(plain, DType::f32);
  write(narrow, DType::bf16);
  const Array results = d.get(plain, n);
  const std::vector<bf16> stored = d.get_raw(static_cast<const bf16*>(narrow), n);
  int64_t other = 0;
  for (size_t i = 0; i < results.size(); ++i)
    other += to_operand(static_cast<float>(results[i])).bits != stored[i].bits;
  CHECK(other == 0);
  d.check_guards();
}

void check_rows(Backend& backend, int64_t rows, int64_t heads, int64_t head_dim) {
  Device d(backend, DType::f32, 1);
  const int64_t cols = heads * head_dim, n = rows * cols;
  const Array values = odd_values(1, n);
  const void *x = d.put(values), *other = d.put(normals(2, n)), *w = d.put(normals(3, cols));
  check_stored(d, n, [&](void* y, DType type) {
    backend.rms_norm({.x = x, .w = w, .y = y, .rows = rows, .cols = cols, .y_type = type});
  });
  check_stored(d, n, [&](void* y, DType type) {
    backend.rms_norm({.x = x,
                      .residual = other,
                      .sum = d.make(n),
                      .w = w,
                      .y = y,
                      .rows = rows,
                      .cols = cols,
                      .y_type = type});
  });
  check_stored(d, n, [&](void* y, DType type) {
    backend.layer_norm({.x = x, .w = w, .bias = w, .y = y, .rows = rows, .cols = cols, .y_type = type});
  });
  for (int64_t turned : {head_dim, head_dim / 4 * 2}) {
    const void *cos = d.put(normals(4, rows * turned / 2)), *sin = d.put(normals(5, rows * turned / 2));
    check_stored(d, n, [&](void* y, DType type) {
      backend.rope({.x = x,
                    .y = y,
                    .cos = cos,
                    .sin = sin,
                    .rows = rows,
                    .heads = heads,
                    .head_dim = head_dim,
                    .rotary_dim = turned,
                    .y_type = type});
    });
  }
  for (Activation kind : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu})
    for (const void* up : {other, static_cast<const void*>(nullptr)})
      check_stored(d, n, [&](void* y, DType type) {
        backend.activate({.kind = kind, .gate = x, .up = up, .y = y, .n = n, .y_type = type});
      });
}

struct Part {
  int64_t lo, hi, rank;
  float dropout;
};

// A layer of some terms on all rows of one sequence and another.
struct Layer {
  int64_t rows, in;
  std::vector<int64_t> outs;
  Format format;
  std::vector<Part> parts;
};

// y and u of every term, dx, and the gradients of all adapters.
std::vector<Array> run_layer(Backend& backend, const Layer& s, Operands operands, DType x_type) {
  Device d(backend, DType::f32, 0, operands);
  const std::vector<RowKey> keys = row_keys(s.rows);
  const std::vector<int32_t> sequences = {0, static_cast<int32_t>(s.rows / 3), static_cast<int32_t>(s.rows)};
  const void* x = put(d, normals(1, s.rows * s.in), x_type);
  std::vector<TestWeight> weights;
  std::vector<std::vector<LoraPart>> lora(s.outs.size());
  std::vector<LinearTerm> terms;
  std::vector<LinearBackwardTerm> back;
  for (size_t t = 0; t < s.outs.size(); ++t) {
    weights.push_back(make_weight(t, s.format, true, s.outs[t], s.in));
    for (const Part& p : s.parts) {
      LoraPart part{.lo = p.lo, .hi = p.hi, .rank = p.rank, .scale = 0.5, .dropout = {p.dropout, 7 + t, 2}};
      part.a = d.put(normals(20 + t, p.rank * s.in, 0.2));
      part.b = d.put(normals(30 + t, p.rank * s.outs[t], 0.2));
      part.u = d.make((p.hi - p.lo) * p.rank);
      part.grad_a = d.put(Array(static_cast<size_t>(p.rank * s.in)));
      part.grad_b = d.put(Array(static_cast<size_t>(p.rank * s.outs[t])));
      lora[t].push_back(part);
    }
    const WeightView w = weights[t].view(d);
    terms.push_back({.w = w, .lora = lora[t], .y = d.make(s.rows * s.outs[t])});
    back.push_back({.w = w, .lora = lora[t], .dy = d.put(normals(40 + t, s.rows * s.outs[t]))});
  }
  backend.linear(
      {.x = x, .rows = s.rows, .terms = terms, .keys = keys.data(), .operands = operands, .x_type = x_type});
  void* dx = d.make(s.rows * s.in);
  backend.linear_backward({.x = x,
                           .rows = s.rows,
                           .terms = back,
                           .keys = keys.data(),
                           .sequences = sequences,
                           .dx = dx,
                           .operands = operands,
                           .x_type = x_type});
  std::vector<Array> results = {d.get(dx, s.rows * s.in)};
  for (size_t t = 0; t < s.outs.size(); ++t) {
    results.push_back(d.get(terms[t].y, s.rows * s.outs[t]));
    for (const LoraPart& p : lora[t]) {
      results.push_back(d.get(p.u, (p.hi - p.lo) * p.rank));
      results.push_back(d.get(p.grad_a, p.rank * s.in));
      results.push_back(d.get(p.grad_b, p.rank * s.outs[t]));
    }
  }
  d.check_guards();
  return results;
}

struct Heads {
  int64_t heads, kv_heads, head_dim, window;
  std::vector<int64_t> lengths;
};

// o, lse, and the gradients of q, k and v.
std::vector<Array> run_attention(Backend& backend, const Heads& s, Operands operands, DType stored) {
  Device d(backend, DType::f32, 0, operands);
  std::vector<SequenceSpan> spans;
  int64_t rows = 0;
  for (int64_t n : s.lengths) {
    spans.push_back({.q_row = rows, .q_len = n, .k_row = rows, .k_len = n});
    rows += n;
  }
  const int64_t q = rows * s.heads * s.head_dim, kv = rows * s.kv_heads * s.head_dim;
  Attention a{.q = put(d, normals(1, q), stored),
              .k = put(d, normals(2, kv), stored),
              .v = put(d, normals(3, kv), stored),
              .o = d.make(q),
              .lse = d.make(rows * s.heads),
              .sequences = spans,
              .heads = s.heads,
              .kv_heads = s.kv_heads,
              .head_dim = s.head_dim,
              .scale = 0.3,
              .window = s.window,
              .operands = operands,
              .q_type = stored,
              .kv_type = stored};
  backend.attention(a);
  AttentionBackward b{
      .forward = a, .dout = d.put(normals(4, q)), .dq = d.make(q), .dk = d.make(kv), .dv = d.make(kv)};
  backend.attention_backward(b);
  d.check_guards();
  return {d.get(a.o, q), d.get(a.lse, rows * s.heads), d.get(b.dq, q), d.get(b.dk, kv), d.get(b.dv, kv)};
}

void check_equal(const std::vector<Array>& a, const std::vector<Array>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    INFO("result " << i);
    CHECK(same_bits(a[i], b[i]));
  }
}

}  // namespace

TEST_CASE("Results that are stored as operands are the others rounded") {
  for (const auto& backend : storing_backends()) {
    INFO(backend->name());
    for (auto [rows, heads, head_dim] :
         {std::array<int64_t, 3>{1, 1, 4}, {3, 2, 20}, {5, 3, 64}, {2, 1, 18}, {40, 9, 64}})
      check_rows(*backend, rows, heads, head_dim);
  }
}

TEST_CASE("A backend without stored operands refuses them") {
  const auto cuda = make_test_backend(kEmulatedGpu);
  REQUIRE(!cuda->stores_operands());
  const auto refused = Catch::Matchers::Contains("is f32, not bf16");
  CHECK_THROWS_WITH(cuda->gemm({.x_type = DType::bf16}), refused);
  CHECK_THROWS_WITH(cuda->qgemm({.x_type = DType::bf16}), refused);
  CHECK_THROWS_WITH(cuda->linear({.x_type = DType::bf16}), refused);
  CHECK_THROWS_WITH(cuda->linear_backward({.x_type = DType::bf16}), refused);
  CHECK_THROWS_WITH(cuda->attention({.q_type = DType::bf16}), refused);
  CHECK_THROWS_WITH(cuda->attention({.kv_type = DType::bf16}), refused);
  CHECK_THROWS_WITH(cuda->attention_backward({.forward = {.q_type = DType::bf16}}), refused);
  CHECK_THROWS_WITH(cuda->rms_norm({.y_type = DType::bf16}), refused);
  CHECK_THROWS_WITH(cuda->layer_norm({.y_type = DType::bf16}), refused);
  CHECK_THROWS_WITH(cuda->rope({.y_type = DType::bf16}), refused);
  CHECK_THROWS_WITH(cuda->activate({.y_type = DType::bf16}), refused);
}

TEST_CASE("Fast loops that do not read a stored x refuse it") {
  const auto refused = Catch::Matchers::Contains("reads x in bf16 only as bf16 operands of the exact class");
  const WeightView codes{.format = Format::nf4};
  for (const auto& backend : storing_backends()) {
    if (backend->name() == "reference") continue;
    INFO(backend->name());
    CHECK_THROWS_WITH(backend->gemm({.x_type = DType::bf16}), refused);
    CHECK_THROWS_WITH(backend->qgemm({.w = codes, .x_type = DType::bf16}), refused);
    CHECK_THROWS_WITH(
        backend->qgemm(
            {.w = codes, .operands = Operands::bf16, .numerics = Numerics::decode, .x_type = DType::bf16}),
        refused);
    CHECK_THROWS_WITH(backend->linear({.x_type = DType::bf16}), refused);
    CHECK_THROWS_WITH(
        backend->linear({.operands = Operands::bf16, .numerics = Numerics::decode, .x_type = DType::bf16}),
        refused);
    CHECK_THROWS_WITH(backend->linear_backward({.x_type = DType::bf16}), refused);
  }
}

TEST_CASE("A linear layer reads a stored x with the bits of what it rounds") {
  const Layer layers[] = {
      {3, 64, {40, 17}, Format::nf4, {{0, 3, 4, 0}}},
      {7, 70, {33}, Format::dense, {{1, 6, 8, 0.1f}}},
      {16, 96, {24}, Format::int8, {}},
      {37, 130, {65, 16, 16}, Format::nf4, {{0, 12, 4, 0.1f}, {12, 13, 16, 0.5f}, {13, 37, 8, 0}}},
      {68, 128, {64, 24}, Format::nf4, {{0, 68, 8, 0}}},
      {66, 70, {33, 20}, Format::fp4, {{0, 66, 5, 0.25f}}},
      {150, 1600, {40}, Format::dense, {{0, 70, 8, 0}, {70, 150, 20, 0.1f}}},
  };
  for (const auto& backend : storing_backends())
    for (Operands operands : {Operands::bf16, Operands::bf16_amx})
      for (const Layer& layer : layers) {
        INFO(backend->name() << " " << name_of(operands) << " " << layer.rows << " rows");
        check_equal(run_layer(*backend, layer, operands, DType::f32),
                    run_layer(*backend, layer, operands, DType::bf16));
      }
}

TEST_CASE("Attention reads stored queries, keys and values with the bits of what it rounds") {
  const Heads shapes[] = {{2, 1, 32, 0, {1, 40}}, {4, 2, 20, 7, {3, 33}}, {3, 3, 64, 0, {300}}};
  for (const auto& backend : storing_backends())
    for (Operands operands : {Operands::bf16, Operands::bf16_amx})
      for (const Heads& shape : shapes) {
        INFO(backend->name() << " " << name_of(operands) << " heads of " << shape.head_dim);
        check_equal(run_attention(*backend, shape, operands, DType::f32),
                    run_attention(*backend, shape, operands, DType::bf16));
      }
}
