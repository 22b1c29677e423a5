// The kernels other than products, of every instruction set, against the plain loops in f64; and the laws of
// bits.

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/test_floats.h"
#include "kernels/cpu/test_tables.h"

using namespace qlora;
using namespace qlora::test;
using cpu::Kernels;

namespace {

Doubles wide(const Floats& v) {
  return {v.begin(), v.end()};
}

// The bits of the exponential's neighbours in f32, as a distance.
double ulps(float got, double exact) {
  auto nearest = static_cast<float>(exact);
  float next = std::nextafter(nearest, std::numeric_limits<float>::infinity());
  return std::abs(static_cast<double>(got) - exact) /
         (static_cast<double>(next) - static_cast<double>(nearest));
}

}  // namespace

TEST_CASE("The vectorized exponential is within one unit in the last place and handles the ends") {
  for (const Kernels* kernels : test::runnable_tables()) {
    Floats x, y;
    for (float v = -87.0f; v < 88.7f; v += 0.00317f) x.push_back(v);
    y.resize(x.size());
    kernels->exp(x.data(), y.data(), static_cast<int64_t>(x.size()));
    double w = 0;
    for (size_t i = 0; i < x.size(); ++i) w = worse(w, ulps(y[i], std::exp(static_cast<double>(x[i]))));
    INFO(kernels->name);
    CHECK(w < 1.01);
    const float infinity = std::numeric_limits<float>::infinity();
    const Floats ends = {0.0f, -infinity, infinity, NAN, -200.0f, 90.0f, -100.0f};
    Floats e(ends.size());
    kernels->exp(ends.data(), e.data(), static_cast<int64_t>(ends.size()));
    CHECK(e[0] == 1.0f);
    CHECK(e[1] == 0.0f);
    CHECK(e[2] == infinity);
    CHECK(std::isnan(e[3]));
    CHECK(e[4] == 0.0f);
    CHECK(e[5] == infinity);
    CHECK(std::abs(e[6] - std::exp(-100.0)) < 1.5e-45);  // subnormal
  }
}

TEST_CASE("The vectorized tanh is within three units in the last place and handles the ends") {
  for (const Kernels* kernels : test::runnable_tables()) {
    Floats x, y;
    for (float v = -12.0f; v < 12.0f; v += 0.000917f) x.push_back(v);
    for (float v = 1e-37f; v < 1; v *= 1.013f) x.push_back(v);
    y.resize(x.size());
    auto tanh_of = [&](const Floats& in, Floats& out) {
      kernels->softcap({.x = in.data(), .y = out.data(), .n = static_cast<int64_t>(in.size()), .cap = 1});
    };
    tanh_of(x, y);
    double w = 0;
    for (size_t i = 0; i < x.size(); ++i) w = worse(w, ulps(y[i], std::tanh(static_cast<double>(x[i]))));
    INFO(kernels->name);
    CHECK(w < 3);
    const float infinity = std::numeric_limits<float>::infinity();
    const Floats ends = {0.0f, -infinity, infinity, NAN, 1e30f};
    Floats e(ends.size());
    tanh_of(ends, e);
    CHECK(e[0] == 0.0f);
    CHECK(e[1] == -1.0f);
    CHECK(e[2] == 1.0f);
    CHECK(std::isnan(e[3]));
    CHECK(e[4] == 1.0f);
  }
}

TEST_CASE("Norms of every width agree with the plain loops in f64") {
  auto plain = make_backend("reference");
  for (const Kernels* kernels : test::runnable_tables()) {
    auto fast = cpu::make_cpu(*kernels);
    for (int64_t cols : {1, 7, 16, 33, 64, 577}) {
      const int64_t rows = 5, n = rows * cols;
      INFO(kernels->name << " " << cols);
      Floats x = random_floats(n, 1, 3), w = random_floats(cols, 2), dy = random_floats(n, 3), y(x.size()),
             rstd(5);
      Doubles xd = wide(x), wd = wide(w), dyd = wide(dy), yd(x.size()), rstd_d(5);
      fast->rms_norm(
          {.x = x.data(), .w = w.data(), .y = y.data(), .rstd = rstd.data(), .rows = rows, .cols = cols});
      plain->rms_norm({.x = xd.data(),
                       .w = wd.data(),
                       .y = yd.data(),
                       .rstd = rstd_d.data(),
                       .rows = rows,
                       .cols = cols,
                       .type = DType::f64});
      CHECK(worst(y, yd) < 1e-6);
      CHECK(worst(rstd, rstd_d) < 1e-6);
      for (Write mode : {Write::overwrite, Write::accumulate}) {
        Floats dx = random_floats(n, 4);
        Doubles dx_d = wide(dx);
        fast->rms_norm_backward({.dy = dy.data(),
                                 .x = x.data(),
                                 .w = w.data(),
                                 .rstd = rstd.data(),
                                 .dx = dx.data(),
                                 .rows = rows,
                                 .cols = cols,
                                 .mode = mode});
        plain->rms_norm_backward({.dy = dyd.data(),
                                  .x = xd.data(),
                                  .w = wd.data(),
                                  .rstd = rstd_d.data(),
                                  .dx = dx_d.data(),
                                  .rows = rows,
                                  .cols = cols,
                                  .mode = mode,
                                  .type = DType::f64});
        CHECK(worst(dx, dx_d) < 2e-6);
      }
    }
  }
}

TEST_CASE("Centered norms of every width agree with the plain loops in f64") {
  auto plain = make_backend("reference");
  for (const Kernels* kernels : test::runnable_tables()) {
    auto fast = cpu::make_cpu(*kernels);
    for (int64_t cols : {2, 7, 16, 33, 64, 577}) {
      const int64_t rows = 5, n = rows * cols;
      INFO(kernels->name << " " << cols);
      Floats x = random_floats(n, 1, 3), w = random_floats(cols, 2), dy = random_floats(n, 3), y(x.size()),
             mean(5), rstd(5), dx(x.size());
      Doubles xd = wide(x), wd = wide(w), dyd = wide(dy), yd(x.size()), mean_d(5), rstd_d(5), dx_d(x.size());
      LayerNorm a{.x = x.data(), .w = w.data(), .bias = w.data(), .y = y.data(), .mean = mean.data()};
      a.rstd = rstd.data();
      a.rows = rows;
      a.cols = cols;
      LayerNorm b = a;
      b.x = xd.data(), b.w = b.bias = wd.data(), b.y = yd.data(), b.mean = mean_d.data(),
      b.rstd = rstd_d.data();
      b.type = DType::f64;
      fast->layer_norm(a);
      plain->layer_norm(b);
      CHECK(worst(y, yd) < 2e-6);
      CHECK(worst(mean, mean_d) < 1e-6);
      CHECK(worst(rstd, rstd_d) < 1e-6);
      LayerNormBackward c{
          .dy = dy.data(), .x = a.x, .w = a.w, .mean = a.mean, .rstd = a.rstd, .dx = dx.data()};
      c.rows = rows;
      c.cols = cols;
      LayerNormBackward d = c;
      d.dy = dyd.data(), d.x = b.x, d.w = b.w, d.mean = b.mean, d.rstd = b.rstd, d.dx = dx_d.data();
      d.type = DType::f64;
      fast->layer_norm_backward(c);
      plain->layer_norm_backward(d);
      CHECK(worst(dx, dx_d) < 3e-6);
    }
  }
}

TEST_CASE("Activations and their slopes of every number are close to the plain loops in f64") {
  auto plain = make_backend("reference");
  Floats x;
  for (float v = -40.0f; v < 40.0f; v += 0.00317f) x.push_back(v);
  const auto n = static_cast<int64_t>(x.size());
  const Floats ones(x.size(), 1.0f);
  const Doubles xd = wide(x), ones_d = wide(ones);
  for (const Kernels* kernels : test::runnable_tables())
    for (Activation kind : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu}) {
      auto fast = cpu::make_cpu(*kernels);
      Floats y(x.size()), slope(x.size()), again(x.size());
      Doubles yd(x.size()), slope_d(x.size());
      fast->activate({.kind = kind, .gate = x.data(), .y = y.data(), .n = n});
      plain->activate({.kind = kind, .gate = xd.data(), .y = yd.data(), .n = n, .type = DType::f64});
      fast->activate_backward({.kind = kind,
                               .dy = ones.data(),
                               .gate = x.data(),
                               .up = ones.data(),
                               .dgate = slope.data(),
                               .dup = again.data(),
                               .n = n});
      plain->activate_backward({.kind = kind,
                                .dy = ones_d.data(),
                                .gate = xd.data(),
                                .dgate = slope_d.data(),
                                .n = n,
                                .type = DType::f64});
      double value_error = 0, slope_error = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double error = std::abs(static_cast<double>(y[i]) - yd[i]);
        value_error = worse(value_error, error / (std::abs(yd[i]) + 1e-9));
        slope_error = worse(slope_error, std::abs(static_cast<double>(slope[i]) - slope_d[i]));
      }
      INFO(kernels->name << " kind " << static_cast<int>(kind));
      CHECK(value_error < 5e-6);  // mostly of the exponent, where little is left
      CHECK(slope_error < 2e-6);
      CHECK(same_bits(again, y));
      const float nan = std::nanf("");
      float nothing = 0;
      fast->activate({.kind = kind, .gate = &nan, .y = &nothing, .n = 1});
      CHECK(std::isnan(nothing));
    }
}

TEST_CASE("Rotary embedding of every head size agrees with the plain loops in f64") {
  auto plain = make_backend("reference");
  for (const Kernels* kernels : test::runnable_tables()) {
    auto fast = cpu::make_cpu(*kernels);
    for (int64_t head_dim : {2, 10, 16, 64, 96}) {
      const int64_t rows = 3, heads = 2, n = rows * heads * head_dim, table = rows * head_dim / 2;
      for (bool inverse : {false, true}) {
        Floats x = random_floats(n, 1), c = random_floats(table, 2), s = random_floats(table, 3),
               y(x.size(), 1.0f);
        Doubles xd = wide(x), cd = wide(c), sd = wide(s), yd(x.size(), 1.0);
        Rope a{.x = x.data(),
               .y = y.data(),
               .cos = c.data(),
               .sin = s.data(),
               .rows = rows,
               .heads = heads,
               .head_dim = head_dim,
               .inverse = inverse,
               .mode = inverse ? Write::accumulate : Write::overwrite};
        Rope b{.x = xd.data(),
               .y = yd.data(),
               .cos = cd.data(),
               .sin = sd.data(),
               .rows = rows,
               .heads = heads,
               .head_dim = head_dim,
               .inverse = inverse,
               .mode = a.mode,
               .type = DType::f64};
        fast->rope(a);
        plain->rope(b);
        INFO(kernels->name << " " << head_dim);
        CHECK(worst(y, yd) < 1e-6);
        if (inverse) continue;
        a.y = x.data();  // in place
        fast->rope(a);
        CHECK(same_bits(x, y));
      }
    }
  }
}

TEST_CASE("Vectorized dropout has the bits of its scalar definition") {
  for (const Kernels* kernels : test::runnable_tables()) {
    for (int64_t cols : {1, 6, 64, 101, 576}) {
      const int64_t rows = 4;
      std::vector<RowKey> keys = {{0, 0}, {3, 17}, {4000000000u, 5}, {1, 2}};
      Floats x = random_floats(rows * cols, 1), y = random_floats(rows * cols, 2), expected = y;
      const uint64_t key = mix_seed(7, 9);
      const float p = 0.3f, factor = static_cast<float>(1.0 / (1.0 - static_cast<double>(p)));
      kernels->drop_rows({.x = x.data(),
                          .y = y.data(),
                          .rows = rows,
                          .cols = cols,
                          .keys = keys.data(),
                          .key = key,
                          .step = 11,
                          .p = p,
                          .factor = factor,
                          .add = true});
      for (int64_t i = 0; i < rows * cols; ++i) {
        const RowKey& row = keys[static_cast<size_t>(i / cols)];
        const auto c = static_cast<uint32_t>(i % cols);
        const bool keep = uniform01(philox(key, c / 4, row.position, row.example, 11).v[c % 4]) >= p;
        expected[static_cast<size_t>(i)] += keep ? x[static_cast<size_t>(i)] * factor : 0.0f;
      }
      INFO(kernels->name << " " << cols);
      CHECK(same_bits(y, expected));
    }
  }
}

TEST_CASE("Cross-entropy of every vocabulary agrees with the plain loops in f64") {
  auto plain = make_backend("reference");
  for (const Kernels* kernels : test::runnable_tables()) {
    auto fast = cpu::make_cpu(*kernels);
    for (int64_t vocab : {2, 17, 64, 1000, 9001}) {
      const int64_t rows = 4;
      Floats x = random_floats(rows * vocab, 5, 8), loss(4), weights = {1, 0.5f, 2, 1};
      Doubles xd = wide(x), loss_d(4);
      std::vector<int32_t> targets = {0, static_cast<int32_t>(vocab - 1), -100, 1}, best(4), best_d(4);
      fast->cross_entropy({.logits = x.data(),
                           .targets = targets.data(),
                           .weights = weights.data(),
                           .loss = loss.data(),
                           .dlogits = x.data(),
                           .argmax = best.data(),
                           .rows = rows,
                           .vocab = vocab});
      plain->cross_entropy({.logits = xd.data(),
                            .targets = targets.data(),
                            .weights = weights.data(),
                            .loss = loss_d.data(),
                            .dlogits = xd.data(),
                            .argmax = best_d.data(),
                            .rows = rows,
                            .vocab = vocab,
                            .type = DType::f64});
      INFO(kernels->name << " " << vocab);
      CHECK(worst(loss, loss_d) < 1e-6);
      CHECK(worst(x, xd) < 1e-6);
      CHECK(best == best_d);
    }
  }
}

TEST_CASE("The largest logit is the first among equals") {
  for (const Kernels* kernels : test::runnable_tables()) {
    Floats x(50, 1.0f), loss(1);
    x[29] = x[41] = 2.0f;
    const int32_t target = 3;
    int32_t best = -1;
    kernels->cross_entropy({.logits = x.data(),
                            .targets = &target,
                            .loss = loss.data(),
                            .argmax = &best,
                            .rows = 1,
                            .vocab = 50});
    CHECK(best == 29);
  }
}
