// The oracle itself, in f64, against the formulas of args_*.h written out once more in the plainest way.

#include <catch2/catch.hpp>
#include <cmath>

#include "core/base/half.h"
#include "kernels/cases/cases.h"
#include "kernels/quant/formats.h"

using namespace qlora;
using namespace qlora::test;

namespace {

class Oracle {
 public:
  Device& device() { return device_; }
  Backend& backend() { return *backend_; }
  void* put(const Array& values) { return device_.put(values); }
  void* make(size_t n) { return device_.make(static_cast<int64_t>(n)); }
  Array get(const void* p, size_t n) { return device_.get(p, static_cast<int64_t>(n)); }

 private:
  std::unique_ptr<Backend> backend_ = make_backend("reference");
  Device device_{*backend_, DType::f64};
};

void check_close(const Array& actual, const Array& expected) {
  REQUIRE(actual.size() == expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    INFO("element " << i << ": " << actual[i] << ", expected " << expected[i]);
    CHECK(std::abs(actual[i] - expected[i]) <= 1e-12 * (1 + std::abs(expected[i])));
  }
}

}  // namespace

TEST_CASE("Products of the reference are sums over k in each layout") {
  constexpr size_t kM = 35, kN = 19, kK = 23;
  Array x = normals(1, kM * kK), w = normals(2, kN * kK), y = normals(3, kM * kN);
  for (Layout layout : {Layout::nt, Layout::nn, Layout::tn}) {
    for (Write mode : {Write::overwrite, Write::accumulate}) {
      Array expected;
      for (size_t i = 0; i < kM; ++i) {
        for (size_t j = 0; j < kN; ++j) {
          double sum = 0;
          for (size_t k = 0; k < kK; ++k) {
            sum += (layout == Layout::tn ? x[k * kM + i] : x[i * kK + k]) *
                   (layout == Layout::nt ? w[j * kK + k] : w[k * kN + j]);
          }
          expected.push_back((mode == Write::accumulate ? y[i * kN + j] : 0) + 0.75 * sum);
        }
      }
      Oracle o;
      Gemm a{.layout = layout, .x = o.put(x), .w = o.put(w), .y = o.put(y), .m = kM, .n = kN, .k = kK};
      a.alpha = 0.75;
      a.mode = mode;
      a.type = DType::f64;
      o.backend().gemm(a);
      check_close(o.get(a.y, kM * kN), expected);
    }
  }
}

TEST_CASE("A quantized product of the reference is the product with the decoded weight") {
  constexpr int64_t kOut = 21, kIn = 50, kRows = 4;
  for (Format format : kFormats) {
    for (bool dq : {false, true}) {
      TestWeight w = make_weight(3, format, dq, kOut, kIn);
      Array x = normals(1, kRows * kIn), dy = normals(2, kRows * kOut);
      Array y(kRows * kOut), dx(kRows * kIn);
      for (size_t r = 0; r < kRows; ++r) {
        for (size_t o = 0; o < kOut; ++o) {
          for (size_t i = 0; i < kIn; ++i) {
            y[r * kOut + o] += x[r * kIn + i] * w.dense[o * kIn + i];
            dx[r * kIn + i] += dy[r * kOut + o] * w.dense[o * kIn + i];
          }
        }
      }
      Oracle o;
      WeightView view = w.view(o.device());
      void *y_out = o.make(y.size()), *dx_out = o.make(dx.size());
      o.backend().qgemm(
          {.layout = Layout::nt, .x = o.put(x), .w = view, .y = y_out, .rows = kRows, .type = DType::f64});
      o.backend().qgemm(
          {.layout = Layout::nn, .x = o.put(dy), .w = view, .y = dx_out, .rows = kRows, .type = DType::f64});
      check_close(o.get(y_out, y.size()), y);
      check_close(o.get(dx_out, dx.size()), dx);
    }
  }
}

TEST_CASE("A weight is decoded with one product and one rounding into every element type") {
  TestWeight w = make_weight(4, Format::nf4, true, 7, 33);
  Oracle o;
  WeightView view = w.view(o.device());
  auto n = static_cast<int64_t>(w.dense.size());
  std::vector<float> f(w.dense.size());
  std::vector<bf16> b(w.dense.size());
  std::vector<f16> h(w.dense.size());
  o.backend().dequantize({.w = view, .dst = f.data(), .type = DType::f32});
  o.backend().dequantize({.w = view, .dst = b.data(), .type = DType::bf16});
  o.backend().dequantize({.w = view, .dst = h.data(), .type = DType::f16});
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    auto value = static_cast<float>(w.dense[i]);
    CHECK(f[i] == value);
    CHECK(b[i].bits == to_bf16(value).bits);
    CHECK(h[i].bits == to_f16(value).bits);
  }
}

TEST_CASE("Attention of the reference is a softmax over the keys that the mask lets through") {
  // Query i stands at position k_len - q_len + i. Heads 0 and 1 read key head 0; heads 2 and 3 read key
  // head 1.
  constexpr size_t kHeads = 4, kKvHeads = 2, kDim = 3;
  const std::vector<SequenceSpan> spans = {{0, 4, 2, 6}, {4, 3, 8, 3}};
  constexpr size_t kQueries = 7, kKeys = 11;
  Array q = normals(1, kQueries * kHeads * kDim), k = normals(2, kKeys * kKvHeads * kDim),
        v = normals(3, kKeys * kKvHeads * kDim);
  for (int64_t window : {0, 1, 3, 50}) {
    Array expected(q.size()), lse(kQueries * kHeads);
    for (const SequenceSpan& s : spans) {
      for (int64_t i = 0; i < s.q_len; ++i) {
        for (size_t h = 0; h < kHeads; ++h) {
          int64_t position = s.k_len - s.q_len + i;
          auto row = static_cast<size_t>(s.q_row + i);
          auto at = [&](int64_t key, size_t c) {
            return (static_cast<size_t>(s.k_row + key) * kKvHeads + h / 2) * kDim + c;
          };
          double total = 0;
          for (int64_t key = 0; key < s.k_len; ++key) {
            if (key > position || (window > 0 && key <= position - window)) continue;
            double score = 0;
            for (size_t c = 0; c < kDim; ++c) score += 0.6 * q[(row * kHeads + h) * kDim + c] * k[at(key, c)];
            total += std::exp(score);
            for (size_t c = 0; c < kDim; ++c) {
              expected[(row * kHeads + h) * kDim + c] += std::exp(score) * v[at(key, c)];
            }
          }
          for (size_t c = 0; c < kDim; ++c) expected[(row * kHeads + h) * kDim + c] /= total;
          lse[row * kHeads + h] = std::log(total);
        }
      }
    }
    Oracle o;
    Attention a{
        .q = o.put(q), .k = o.put(k), .v = o.put(v), .o = o.make(q.size()), .lse = o.make(lse.size())};
    a.sequences = spans;
    a.heads = kHeads;
    a.kv_heads = kKvHeads;
    a.head_dim = kDim;
    a.scale = 0.6;
    a.window = window;
    a.type = DType::f64;
    o.backend().attention(a);
    check_close(o.get(a.o, q.size()), expected);
    check_close(o.get(a.lse, lse.size()), lse);
  }
}

TEST_CASE("The norm the activation and the loss of the reference are their formulas") {
  constexpr size_t kRows = 3, kCols = 5, kAll = kRows * kCols;
  Array x = normals(1, kAll), w = normals(2, kCols), norm, gated, loss;
  std::vector<int32_t> targets = {4, -1, 0};
  for (size_t r = 0; r < kRows; ++r) {
    double squares = 0, total = 0;
    for (size_t c = 0; c < kCols; ++c) {
      squares += x[r * kCols + c] * x[r * kCols + c] / kCols;
      total += std::exp(x[r * kCols + c]);
    }
    for (size_t c = 0; c < kCols; ++c) {
      double value = x[r * kCols + c];
      norm.push_back(value / std::sqrt(squares + 1e-3) * w[c]);
      gated.push_back(value / (1 + std::exp(-value)) * value);
    }
    auto target = static_cast<size_t>(targets[r]);
    loss.push_back(targets[r] < 0 ? 0 : -std::log(std::exp(x[r * kCols + target]) / total));
  }
  Oracle o;
  void *in = o.put(x), *y = o.make(kAll), *losses = o.make(kRows);
  RmsNorm n{.x = in, .w = o.put(w), .y = y, .rows = kRows, .cols = kCols, .eps = 1e-3, .type = DType::f64};
  o.backend().rms_norm(n);
  check_close(o.get(y, kAll), norm);
  o.backend().activate({.gate = in, .up = in, .y = y, .n = kAll, .type = DType::f64});
  check_close(o.get(y, kAll), gated);
  CrossEntropy e{.logits = in, .targets = targets.data(), .loss = losses, .rows = kRows, .vocab = kCols};
  e.type = DType::f64;
  o.backend().cross_entropy(e);
  check_close(o.get(losses, kRows), loss);
}

TEST_CASE("The sum of squares runs over all elements of all tensors") {
  Oracle o;
  Array a = normals(1, 5000), b = normals(2, 3);
  double expected = 0;
  for (double v : a) expected += v * v;
  for (double v : b) expected += v * v;
  std::vector<TensorRef> tensors = {{o.put(a), 5000}, {nullptr, 0}, {o.put(b), 3}};
  Array sum(1);
  o.backend().sum_squares({.tensors = tensors, .out = sum.data(), .type = DType::f64});
  check_close(sum, {expected});
}

TEST_CASE("AdamW of the reference takes the steps of the published rule with clipping and weight decay") {
  constexpr size_t kN = 6;
  constexpr double kRate = 0.02, kDecay = 0.3, kScale = 0.25, kBeta1 = 0.8, kBeta2 = 0.95, kEps = 1e-3;
  for (double max_norm : {0.0, 0.4, 1e6}) {
    Oracle o;
    Array p = normals(1, kN), m(kN), v(kN);
    AdamTensor t{.p = o.put(p), .m = o.put(m), .v = o.put(v), .n = kN, .weight_decay = kDecay};
    for (int64_t step = 1; step <= 3; ++step) {
      Array g = normals(static_cast<uint64_t>(step) + 10, kN, 5);
      double squares = 0;
      for (double value : g) squares += value * value;
      double norm = std::sqrt(squares) * kScale;
      double clip = max_norm > 0 && norm > max_norm ? max_norm / (norm + 1e-6) : 1;
      for (size_t i = 0; i < kN; ++i) {
        double gradient = g[i] * kScale * clip;
        p[i] *= 1 - kRate * kDecay;
        m[i] = kBeta1 * m[i] + (1 - kBeta1) * gradient;
        v[i] = kBeta2 * v[i] + (1 - kBeta2) * gradient * gradient;
        double m_hat = m[i] / (1 - std::pow(kBeta1, step)), v_hat = v[i] / (1 - std::pow(kBeta2, step));
        p[i] -= kRate * m_hat / (std::sqrt(v_hat) + kEps);
      }
      t.g = o.put(g);
      StepScalars scalars{squares, kScale, max_norm, kRate};
      AdamW a{.tensors = {&t, 1}, .scalars = &scalars, .beta1 = kBeta1, .beta2 = kBeta2, .eps = kEps};
      a.step = step;
      a.type = DType::f64;
      o.backend().adamw(a);
      check_close(o.get(t.p, kN), p);
      check_close(o.get(t.m, kN), m);
      check_close(o.get(t.v, kN), v);
    }
  }
}
