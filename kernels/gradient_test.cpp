// Every backward kernel of the reference in f64, against central differences of its forward kernel.

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "kernels/cases/cases.h"

using namespace qlora;
using namespace qlora::test;

namespace {

// loss(values) = sum over results of dy * y, with y a function of one operand and all else fixed. Compares
// the slope at several elements with `gradient`; where the kernel accumulated, `before` is what the
// destination held.
void check_slopes(const std::string& what, const Array& values,
                  const std::function<double(const Array&)>& loss, const Array& gradient,
                  const Array* before = nullptr) {
  INFO(what);
  REQUIRE(values.size() == gradient.size());
  constexpr double kStep = 1e-5;
  size_t stride = std::max<size_t>(1, values.size() / 23);
  for (size_t i = 0; i < values.size(); i += stride) {
    Array moved = values;
    moved[i] += kStep;
    double above = loss(moved);
    moved[i] -= 2 * kStep;
    double slope = (above - loss(moved)) / (2 * kStep);
    double actual = gradient[i] - (before != nullptr ? (*before)[i] : 0);
    INFO("element " << i << ": slope " << slope << ", gradient " << actual);
    CHECK(std::abs(slope - actual) <= 1e-7 * (1 + std::abs(slope)));
  }
}

double dot(const Array& a, const Array& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

class F64 {
 public:
  Backend& backend() { return *backend_; }

 private:
  std::unique_ptr<Backend> backend_ = make_backend("reference");
};

constexpr Write kModes[] = {Write::overwrite, Write::accumulate};

void* destination(Device& d, const Array& before, Write mode) {
  return mode == Write::accumulate ? d.put(before) : d.make(static_cast<int64_t>(before.size()));
}

}  // namespace

TEST_CASE("The gradient of the norm is the slope of the norm") {
  F64 f64;
  constexpr int64_t kRows = 3, kCols = 11, kAll = kRows * kCols;
  Array x = normals(1, kAll), w = normals(2, kCols), dy = normals(3, kAll), before = normals(4, kAll);
  auto forward = [&](Device& d, const Array& at, void* rstd) {
    void* y = d.make(kAll);
    RmsNorm a{.x = d.put(at), .w = d.put(w), .y = y, .rstd = rstd, .rows = kRows, .cols = kCols, .eps = 0.1};
    a.type = DType::f64;
    d.backend().rms_norm(a);
    return d.get(y, kAll);
  };
  auto loss = [&](const Array& at) {
    Device d(f64.backend(), DType::f64);
    return dot(dy, forward(d, at, nullptr));
  };
  for (Write mode : kModes) {
    Device d(f64.backend(), DType::f64);
    void *rstd = d.make(kRows), *dx = destination(d, before, mode);
    forward(d, x, rstd);
    d.backend().rms_norm_backward({.dy = d.put(dy),
                                   .x = d.put(x),
                                   .w = d.put(w),
                                   .rstd = rstd,
                                   .dx = dx,
                                   .rows = kRows,
                                   .cols = kCols,
                                   .mode = mode,
                                   .type = DType::f64});
    check_slopes("x", x, loss, d.get(dx, kAll), mode == Write::accumulate ? &before : nullptr);
  }
}

TEST_CASE("The gradient of the centered norm is the slope of the norm") {
  F64 f64;
  constexpr int64_t kRows = 3, kCols = 11, kAll = kRows * kCols;
  Array x = normals(1, kAll), w = normals(2, kCols), dy = normals(3, kAll), before = normals(4, kAll);
  auto forward = [&](Device& d, const Array& at, void* mean, void* rstd) {
    LayerNorm a{
        .x = d.put(at), .w = d.put(w), .bias = d.put(w), .y = d.make(kAll), .mean = mean, .rstd = rstd};
    a.rows = kRows;
    a.cols = kCols;
    a.eps = 0.1;
    a.type = DType::f64;
    d.backend().layer_norm(a);
    return d.get(a.y, kAll);
  };
  auto loss = [&](const Array& at) {
    Device d(f64.backend(), DType::f64);
    return dot(dy, forward(d, at, nullptr, nullptr));
  };
  for (Write mode : kModes)
    for (bool beside : {false, true}) {
      if (beside && mode == Write::accumulate) continue;
      Device d(f64.backend(), DType::f64);
      void *mean = d.make(kRows), *rstd = d.make(kRows), *dx = destination(d, before, mode);
      forward(d, x, mean, rstd);
      d.backend().layer_norm_backward({.dy = d.put(dy),
                                       .x = d.put(x),
                                       .w = d.put(w),
                                       .mean = mean,
                                       .rstd = rstd,
                                       .beside = beside ? d.put(before) : nullptr,
                                       .dx = dx,
                                       .rows = kRows,
                                       .cols = kCols,
                                       .mode = mode,
                                       .type = DType::f64});
      const bool adds = beside || mode == Write::accumulate;
      check_slopes("x", x, loss, d.get(dx, kAll), adds ? &before : nullptr);
    }
}

TEST_CASE("The inverse rotation is the gradient of the rotation") {
  F64 f64;
  constexpr int64_t kRows = 4, kHeads = 2, kDim = 6, kAll = kRows * kHeads * kDim;
  Array x = normals(1, kAll), dy = normals(2, kAll), before = normals(3, kAll);
  std::vector<int32_t> positions = {0, 1, 7, 100};
  std::vector<float> frequencies = {1.0f, 0.1f, 0.01f};
  for (int64_t rotary : {0, 2, 4}) {
    const int64_t half = rotary > 0 ? rotary / 2 : kDim / 2;
    auto rotate = [&](Device& d, const Array& values, bool inverse, Write mode) {
      void *cos = d.make(kRows * half), *sin = d.make(kRows * half);
      d.backend().rope_table({.positions = positions.data(),
                              .inv_freq = frequencies.data(),
                              .cos = cos,
                              .sin = sin,
                              .rows = kRows,
                              .half = half,
                              .type = DType::f64});
      Rope a{.x = d.put(values), .y = destination(d, before, mode), .cos = cos, .sin = sin};
      a.rows = kRows;
      a.heads = kHeads;
      a.head_dim = kDim;
      a.rotary_dim = rotary;
      a.inverse = inverse;
      a.mode = mode;
      a.type = DType::f64;
      d.backend().rope(a);
      return d.get(a.y, kAll);
    };
    auto loss = [&](const Array& at) {
      Device d(f64.backend(), DType::f64);
      return dot(dy, rotate(d, at, false, Write::overwrite));
    };
    for (Write mode : kModes) {
      Device d(f64.backend(), DType::f64);
      check_slopes("x of the first " + std::to_string(2 * half), x, loss, rotate(d, dy, true, mode),
                   mode == Write::accumulate ? &before : nullptr);
    }
  }
}

TEST_CASE("The gradients of the activations are their slopes gated and not") {
  F64 f64;
  constexpr int64_t kAll = 40;
  Array gate = normals(1, kAll, 3), up = normals(2, kAll), dy = normals(3, kAll), before = normals(4, kAll);
  for (Activation kind : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu})
    for (bool gated : {true, false})
      for (Write gate_mode : kModes) {
        auto loss = [&](const Array& g, const Array& u) {
          Device d(f64.backend(), DType::f64);
          Activate a{
              .kind = kind, .gate = d.put(g), .up = gated ? d.put(u) : nullptr, .y = d.make(kAll), .n = kAll};
          a.type = DType::f64;
          d.backend().activate(a);
          return dot(dy, d.get(a.y, kAll));
        };
        Write up_mode = gate_mode == Write::overwrite ? Write::accumulate : Write::overwrite;
        Device d(f64.backend(), DType::f64);
        void* dgate = destination(d, before, gate_mode);
        void* dup = gated ? destination(d, before, up_mode) : nullptr;
        d.backend().activate_backward({.kind = kind,
                                       .dy = d.put(dy),
                                       .gate = d.put(gate),
                                       .up = gated ? d.put(up) : nullptr,
                                       .dgate = dgate,
                                       .dup = dup,
                                       .n = kAll,
                                       .gate_mode = gate_mode,
                                       .up_mode = up_mode,
                                       .type = DType::f64});
        bool gate_adds = gate_mode == Write::accumulate;
        INFO("kind " << static_cast<int>(kind));
        check_slopes(
            "gate", gate, [&](const Array& at) { return loss(at, up); }, d.get(dgate, kAll),
            gate_adds ? &before : nullptr);
        if (!gated) continue;
        check_slopes(
            "up", up, [&](const Array& at) { return loss(gate, at); }, d.get(dup, kAll),
            gate_adds ? nullptr : &before);
      }
}

TEST_CASE("The gradient of the cross entropy is the weighted slope of the loss") {
  F64 f64;
  constexpr int64_t kRows = 3, kVocab = 9, kAll = kRows * kVocab;
  Array logits = normals(1, kAll, 2);
  std::vector<int32_t> targets = {4, -100, 8};
  std::vector<float> weights = {0.5f, 2.0f, 1.5f};
  double softcap = 0;
  auto run = [&](Device& d, const Array& at, void* dlogits) {
    void* loss = d.make(kRows);
    d.backend().cross_entropy({.logits = d.put(at),
                               .targets = targets.data(),
                               .weights = weights.data(),
                               .loss = loss,
                               .dlogits = dlogits,
                               .rows = kRows,
                               .vocab = kVocab,
                               .type = DType::f64,
                               .softcap = softcap});
    return d.get(loss, kRows);
  };
  auto loss = [&](const Array& at) {
    Device d(f64.backend(), DType::f64);
    return dot(run(d, at, nullptr), {0.5, 2.0, 1.5});
  };
  for (double cap : {0.0, 3.0}) {
    softcap = cap;
    Device d(f64.backend(), DType::f64);
    void* dlogits = d.make(kAll);
    run(d, logits, dlogits);
    check_slopes("logits", logits, loss, d.get(dlogits, kAll));
  }
}

TEST_CASE(
    "The gradients of attention are its slopes with windows shared heads cached keys softcap and bias") {
  F64 f64;
  struct Shape {
    int64_t heads, kv_heads, window;
    std::vector<SequenceSpan> spans;
    int64_t query_rows, key_rows;
    double softcap = 0;
    bool bias = false;
  };
  constexpr int64_t kDistances = 10;
  const Shape shapes[] = {
      {2, 2, 0, {{0, 5, 0, 5}, {5, 1, 5, 1}, {6, 0, 6, 0}, {6, 4, 6, 4}}, 10, 10},
      {6, 2, 3, {{0, 7, 0, 7}, {7, 2, 7, 2}}, 9, 9},
      {3, 1, 0, {{0, 2, 0, 6}, {2, 3, 8, 9}}, 5, 17},
      {2, 1, 4, {{0, 2, 0, 6}, {2, 3, 6, 9}}, 5, 15},
      {2, 1, 0, {{0, 5, 0, 5}, {5, 2, 5, 2}}, 7, 7, 0.8},
      {4, 2, 3, {{0, 6, 0, 6}}, 6, 6, 0, true},
      {2, 1, 0, {{0, 2, 0, 6}, {2, 3, 6, 9}}, 5, 15, 1.5, true},
  };
  constexpr int64_t kDim = 5;
  for (const Shape& s : shapes) {
    int64_t q_size = s.query_rows * s.heads * kDim, k_size = s.key_rows * s.kv_heads * kDim;
    Array q = normals(1, q_size), k = normals(2, k_size), v = normals(3, k_size), dout = normals(4, q_size),
          bias = normals(5, s.heads * kDistances);
    auto forward = [&](Device& d, const Array& q_at, const Array& k_at, const Array& v_at) {
      Attention a{.q = d.put(q_at), .k = d.put(k_at), .v = d.put(v_at)};
      a.o = d.make(q_size);
      a.lse = d.make(s.query_rows * s.heads);
      a.sequences = s.spans;
      a.heads = s.heads;
      a.kv_heads = s.kv_heads;
      a.head_dim = kDim;
      a.scale = 0.4;
      a.window = s.window;
      a.softcap = s.softcap;
      a.bias = s.bias ? d.put(bias) : nullptr;
      a.distances = kDistances;
      a.type = DType::f64;
      d.backend().attention(a);
      return a;
    };
    auto loss = [&](const Array& q_at, const Array& k_at, const Array& v_at) {
      Device d(f64.backend(), DType::f64);
      return dot(dout, d.get(forward(d, q_at, k_at, v_at).o, q_size));
    };
    Device d(f64.backend(), DType::f64);
    // Key rows of no sequence keep what they had.
    void *dq = d.put(Array(q.size())), *dk = d.put(Array(k.size())), *dv = d.put(Array(v.size()));
    d.backend().attention_backward(
        {.forward = forward(d, q, k, v), .dout = d.put(dout), .dq = dq, .dk = dk, .dv = dv});
    check_slopes(
        "q", q, [&](const Array& at) { return loss(at, k, v); }, d.get(dq, q_size));
    check_slopes(
        "k", k, [&](const Array& at) { return loss(q, at, v); }, d.get(dk, k_size));
    check_slopes(
        "v", v, [&](const Array& at) { return loss(q, k, at); }, d.get(dv, k_size));
  }
}

TEST_CASE("The gradients of scattered rows are gathered rows") {
  F64 f64;
  std::vector<int32_t> ids = {4, 0, 2};
  Array table = normals(1, 6 * 3), dy = normals(2, 3 * 3), before = normals(3, 6 * 3);
  auto loss = [&](const Array& at) {
    Device d(f64.backend(), DType::f64);
    void* y = d.make(9);
    GatherRows a{.table = d.put(at), .ids = ids.data(), .y = y, .rows = 3, .cols = 3, .type = DType::f64};
    d.backend().gather_rows(a);
    return dot(dy, d.get(y, 9));
  };
  for (Write mode : kModes) {
    Device d(f64.backend(), DType::f64);
    void* dx = destination(d, before, mode);
    ScatterRows a{.x = d.put(dy), .ids = ids.data(), .y = dx, .rows = 3, .cols = 3, .total = 6, .mode = mode};
    a.type = DType::f64;
    d.backend().scatter_rows(a);
    check_slopes("table", table, loss, d.get(dx, 18), mode == Write::accumulate ? &before : nullptr);
  }
}
