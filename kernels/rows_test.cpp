// The law that makes packing free of consequences: a row's result has the same bits alone and among other
// rows, on every available backend.

#include <catch2/catch.hpp>
#include <functional>

#include "kernels/cases/cases.h"
#include "kernels/quant/formats.h"

using namespace qlora;
using namespace qlora::test;

namespace {

Array slice(const Array& all, int64_t lo, int64_t hi, int64_t width) {
  return {all.begin() + lo * width, all.begin() + hi * width};
}

// run(device, lo, hi) computes rows [lo, hi) and returns [hi - lo, width]. Checks cuts of `rows` rows.
void check_rows(const std::string& what, int64_t rows, int64_t width,
                const std::function<Array(Device&, int64_t, int64_t)>& run) {
  for (const std::string& name : available_backends()) {
    auto backend = make_test_backend(name);
    auto compute = [&](int64_t lo, int64_t hi) {
      Device d(*backend, DType::f32, lo % 3);
      return run(d, lo, hi);
    };
    Array all = compute(0, rows);
    const std::pair<int64_t, int64_t> cuts[] = {{0, 1},        {rows - 1, rows}, {3, 5}, {1, rows},
                                                {0, rows / 2}, {rows / 3, rows}, {7, 20}};
    for (auto [lo, hi] : cuts) {
      INFO(name << ": " << what << ", rows " << lo << " to " << hi << " of " << rows);
      CHECK(same_bits(compute(lo, hi), slice(all, lo, hi, width)));
    }
  }
}

constexpr int64_t kRows = 45;

}  // namespace

TEST_CASE("A row of a dense product has the same bits alone and among others") {
  for (auto [n, k] : {std::pair<int64_t, int64_t>{1, 40}, {8, 576}, {65, 33}, {192, 1030}}) {
    Array x = normals(1, kRows * k), w = normals(2, n * k), y = normals(3, kRows * n);
    for (Layout layout : {Layout::nt, Layout::nn}) {
      for (Write mode : {Write::overwrite, Write::accumulate}) {
        for (Operands operands : kAllOperands) {
          auto run = [&](Device& d, int64_t lo, int64_t hi) {
            Gemm a{.layout = layout, .x = d.put(slice(x, lo, hi, k)), .w = d.put(w)};
            a.y = d.put(slice(y, lo, hi, n));
            a.m = hi - lo;
            a.n = n;
            a.k = k;
            a.alpha = 0.7;
            a.mode = mode;
            a.operands = operands;
            d.backend().gemm(a);
            return d.get(a.y, (hi - lo) * n);
          };
          check_rows("n " + std::to_string(n) + " k " + std::to_string(k), kRows, n, run);
        }
      }
    }
  }
}

TEST_CASE("A row of a quantized product has the same bits alone and among others") {
  for (auto [out, in] : {std::pair<int64_t, int64_t>{17, 100}, {96, 576}}) {
    for (Format format : kFormats) {
      TestWeight w = make_weight(5, format, true, out, in);
      for (Layout layout : {Layout::nt, Layout::nn}) {
        int64_t k = layout == Layout::nt ? in : out, n = layout == Layout::nt ? out : in;
        Array x = normals(1, kRows * k);
        for (Operands operands : kAllOperands) {
          check_rows(w.name(), kRows, n, [&](Device& d, int64_t lo, int64_t hi) {
            void* y = d.make((hi - lo) * n);
            QGemm a{
                .layout = layout, .x = d.put(slice(x, lo, hi, k)), .w = w.view(d), .y = y, .rows = hi - lo};
            a.operands = operands;
            d.backend().qgemm(a);
            return d.get(y, (hi - lo) * n);
          });
        }
      }
    }
  }
}

TEST_CASE("A row of a norm and of its gradient has the same bits alone and among others") {
  for (int64_t cols : {5, 64, 577}) {
    Array x = normals(1, kRows * cols), w = normals(2, cols), dy = normals(3, kRows * cols);
    check_rows("norm and gradient", kRows, cols, [&](Device& d, int64_t lo, int64_t hi) {
      int64_t rows = hi - lo;
      RmsNorm f{.x = d.put(slice(x, lo, hi, cols)), .w = d.put(w), .rows = rows, .cols = cols};
      f.y = d.make(rows * cols);
      f.rstd = d.make(rows);
      d.backend().rms_norm(f);
      // The forward result goes in as what the gradient adds to, so that both are compared.
      RmsNormBackward b{.dy = d.put(slice(dy, lo, hi, cols)), .x = f.x, .w = f.w, .rstd = f.rstd, .dx = f.y};
      b.rows = rows;
      b.cols = cols;
      b.mode = Write::accumulate;
      d.backend().rms_norm_backward(b);
      return d.get(f.y, rows * cols);
    });
  }
}

TEST_CASE("A row of a centered norm and of its gradient has the same bits alone and among others") {
  for (int64_t cols : {5, 64, 577}) {
    Array x = normals(1, kRows * cols), w = normals(2, cols), dy = normals(3, kRows * cols);
    check_rows("centered norm and gradient", kRows, cols, [&](Device& d, int64_t lo, int64_t hi) {
      int64_t rows = hi - lo;
      LayerNorm f{
          .x = d.put(slice(x, lo, hi, cols)), .w = d.put(w), .bias = d.put(w), .y = d.make(rows * cols)};
      f.mean = d.make(rows);
      f.rstd = d.make(rows);
      f.rows = rows;
      f.cols = cols;
      d.backend().layer_norm(f);
      // As above, what the gradient adds to.
      LayerNormBackward b{
          .dy = d.put(slice(dy, lo, hi, cols)), .x = f.x, .w = f.w, .mean = f.mean, .rstd = f.rstd};
      b.dx = f.y;
      b.rows = rows;
      b.cols = cols;
      b.mode = Write::accumulate;
      d.backend().layer_norm_backward(b);
      return d.get(f.y, rows * cols);
    });
  }
}

TEST_CASE("A row of the activation and of the loss has the same bits alone and among others") {
  for (int64_t cols : {7, 64, 301}) {
    Array gate = normals(1, kRows * cols, 3), up = normals(2, kRows * cols);
    for (Activation kind : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu})
      check_rows("activation", kRows, cols, [&](Device& d, int64_t lo, int64_t hi) {
        int64_t n = (hi - lo) * cols;
        Activate f{
            .kind = kind, .gate = d.put(slice(gate, lo, hi, cols)), .up = d.put(slice(up, lo, hi, cols))};
        f.y = d.make(n);
        f.n = n;
        d.backend().activate(f);
        ActivateBackward b{.kind = kind, .dy = f.y, .gate = f.gate, .up = f.up, .dgate = d.make(n)};
        b.dup = d.make(n);
        b.n = n;
        d.backend().activate_backward(b);
        d.backend().add({.a = b.dgate, .b = b.dup, .y = f.y, .n = n});
        return d.get(f.y, n);
      });
    check_rows("loss", kRows, cols, [&](Device& d, int64_t lo, int64_t hi) {
      int64_t n = (hi - lo) * cols;
      std::vector<int32_t> targets;
      for (int64_t r = lo; r < hi; ++r) targets.push_back(static_cast<int32_t>(r % cols));
      CrossEntropy a{.logits = d.put(slice(gate, lo, hi, cols)), .targets = targets.data()};
      a.loss = d.make(hi - lo);
      a.dlogits = d.make(n);
      a.rows = hi - lo;
      a.vocab = cols;
      a.softcap = cols == 64 ? 4 : 0;
      d.backend().cross_entropy(a);
      return d.get(a.dlogits, n);
    });
  }
}

namespace {

// Attention of some sequences of a batch, forward and backward: o, dq, dk, dv, of their rows only.
struct Sequences {
  int64_t heads, kv_heads, head_dim, window;
  std::vector<int64_t> lengths;
  bool shaped = false;  // scores have a softcap and a bias

  std::vector<Array> run(Backend& backend, std::vector<size_t> which, Operands operands) const {
    Device d(backend, DType::f32, static_cast<int64_t>(which.size()) % 2);
    std::vector<SequenceSpan> spans;
    Array q, k, v, dout;
    int64_t row = 0;
    auto append = [](Array& to, const Array& from) {
      for (double value : from) to.push_back(value);
    };
    for (size_t s : which) {
      int64_t n = lengths[s];
      spans.push_back({row, n, row, n});
      row += n;
      append(q, normals(10 * s, n * heads * head_dim));
      append(k, normals(10 * s + 1, n * kv_heads * head_dim));
      append(v, normals(10 * s + 2, n * kv_heads * head_dim));
      append(dout, normals(10 * s + 3, n * heads * head_dim));
    }
    Attention a{.q = d.put(q), .k = d.put(k), .v = d.put(v), .sequences = spans};
    auto q_size = static_cast<int64_t>(q.size()), k_size = static_cast<int64_t>(k.size());
    a.o = d.make(q_size);
    a.lse = d.make(row * heads);
    a.heads = heads;
    a.kv_heads = kv_heads;
    a.head_dim = head_dim;
    a.window = window;
    a.scale = 0.3;
    a.operands = operands;
    if (shaped) {
      a.softcap = 3;
      a.distances = 100;
      a.bias = d.put(normals(7, heads * a.distances));
    }
    backend.attention(a);
    void *dq = d.make(q_size), *dk = d.make(k_size), *dv = d.make(k_size);
    backend.attention_backward({.forward = a, .dout = d.put(dout), .dq = dq, .dk = dk, .dv = dv});
    return {d.get(a.o, q_size), d.get(dq, q_size), d.get(dk, k_size), d.get(dv, k_size)};
  }
};

}  // namespace

TEST_CASE("Attention and its gradients have the same bits for a sequence alone and in a batch") {
  const Sequences batches[] = {{2, 1, 16, 0, {5, 1, 70, 33, 2}}, {3, 3, 64, 0, {1, 64, 65, 7}},
                               {4, 2, 80, 9, {30, 3, 12}, true}, {9, 3, 64, 0, {40, 90}},
                               {1, 1, 128, 9, {20, 65}},         {1, 1, 256, 0, {33, 5}, true}};
  for (const std::string& name : available_backends())
    for (Operands operands : kAllOperands) {
      auto backend = make_test_backend(name);
      for (const Sequences& batch : batches) {
        std::vector<size_t> everything;
        for (size_t s = 0; s < batch.lengths.size(); ++s) everything.push_back(s);
        std::vector<Array> all = batch.run(*backend, everything, operands);
        int64_t row = 0;
        for (size_t s : everything) {
          INFO(name << ": sequence " << s << ", heads of " << batch.head_dim);
          std::vector<Array> alone = batch.run(*backend, {s}, operands);
          for (size_t i = 0; i < all.size(); ++i) {
            int64_t width = (i < 2 ? batch.heads : batch.kv_heads) * batch.head_dim;
            CHECK(same_bits(alone[i], slice(all[i], row, row + batch.lengths[s], width)));
          }
          row += batch.lengths[s];
        }
      }
    }
}

TEST_CASE("A query has the same bits over keys from a cache as in its whole sequence") {
  constexpr int64_t kLength = 131, kHeads = 4, kKvHeads = 2, kDim = 32, kWidth = kHeads * kDim;
  Array q = normals(1, kLength * kWidth), k = normals(2, kLength * kKvHeads * kDim),
        v = normals(3, kLength * kKvHeads * kDim), bias = normals(4, kHeads * kLength);
  for (const std::string& name : available_backends()) {
    auto backend = make_test_backend(name);
    for (Operands operands : kAllOperands)
      for (int64_t window : {0, 20}) {
        // Queries [lo, hi) over keys [0, hi), which lie `shift` rows into the buffer.
        auto run = [&](int64_t lo, int64_t hi, int64_t shift) {
          Device d(*backend, DType::f32);
          auto shifted = [&](const Array& keys) {
            Array all(static_cast<size_t>((shift + hi) * kKvHeads * kDim), 7.0);
            std::copy_n(keys.begin(), hi * kKvHeads * kDim, all.begin() + shift * kKvHeads * kDim);
            return all;
          };
          SequenceSpan span{0, hi - lo, shift, hi};
          Attention a{.q = d.put(slice(q, lo, hi, kWidth)), .k = d.put(shifted(k)), .v = d.put(shifted(v))};
          a.o = d.make((hi - lo) * kWidth);
          a.sequences = {&span, 1};
          a.heads = kHeads;
          a.kv_heads = kKvHeads;
          a.head_dim = kDim;
          a.window = window;
          a.scale = 0.2;
          a.operands = operands;
          if (window > 0) {
            a.softcap = 2;
            a.bias = d.put(bias);
            a.distances = kLength;
          }
          d.backend().attention(a);
          return d.get(a.o, (hi - lo) * kWidth);
        };
        Array whole = run(0, kLength, 0);
        for (auto [lo, hi] : {std::pair<int64_t, int64_t>{0, 1}, {10, 11}, {64, 65}, {130, 131}, {60, 100}}) {
          INFO(name << ": window " << window << ", queries " << lo << " to " << hi);
          CHECK(same_bits(run(lo, hi, 5), slice(whole, lo, hi, kWidth)));
        }
      }
  }
}
