// The 8-bit copy of the output head that token steps read: when there is one, and how far its logits are off.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "core/models/decode_head.h"
#include "core/models/tiny_model.h"
#include "core/ops/ops.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

namespace {

const TinyConfig kWhole = {
    .hidden = 128, .intermediate = 128, .layers = 1, .heads = 4, .kv_heads = 2, .head_dim = 16};

// What decode_head.h and the decode class allow, in f64, and the logit itself.
struct Allowed {
  double logit = 0, error = 1e-6;
  Allowed(const float* x, const float* w, int64_t n) {
    for (int64_t b = 0; b < n; b += 64) {
      double absmax = 0, sum = 0, largest = 0;
      for (int64_t i = b; i < b + 64; ++i) {
        absmax = std::max(absmax, std::abs(static_cast<double>(w[i])));
        sum += std::abs(static_cast<double>(x[i]));
        largest = std::max(largest, std::abs(static_cast<double>(x[i])));
        logit += static_cast<double>(x[i]) * static_cast<double>(w[i]);
      }
      error += absmax * (0.004 * sum + 1.02 * std::exp2(-13.5) * (sum + 64 * largest));
    }
  }
};

}  // namespace

TEST_CASE("the head of token steps is off by what eight bits allow, and not exact") {
  for (const std::string& name : runnable_backends())
    for (Operands operands : kAllOperands)
      for (bool tied : {false, true}) {
        INFO(name << " " << name_of(operands) << (tied ? " tied" : ""));
        auto backend = make_backend(name);
        Memory memory(*backend);
        TinyConfig config = kWhole;
        config.tied = tied;
        auto model =
            load_tiny_model(memory, config, {.quant = {.format = Format::nf4}, .operands = operands});
        auto head = decode_head(*model, memory);
        REQUIRE(head != nullptr);
        CHECK(head->bytes() < model->head().bytes());
        const int64_t rows = 5, in = head->in(), out = head->out();
        const std::vector<float> x = random_floats(7, "x", rows * in, 2);
        const std::vector<float> w = model->head().to_dense(memory, DType::f32).to_floats();
        const Tensor hidden = Tensor::from_floats(memory, {rows, in}, DType::f32, x);
        const Tensor y(memory, {rows, out}, DType::f32);
        head->forward({.backend = *backend, .memory = memory, .numerics = Numerics::decode}, hidden, {}, y);
        const std::vector<float> logits = y.to_floats();
        double furthest = 0;
        for (int64_t i = 0; i < rows * out; ++i) {
          const Allowed a(x.data() + i / out * in, w.data() + i % out * in, in);
          const double off = std::abs(static_cast<double>(logits[static_cast<size_t>(i)]) - a.logit);
          // (bf16 operands round x as well, where the product is an exact one)
          CHECK(off <= a.error * (is_bf16(operands) ? 2 : 1));
          furthest = std::max(furthest, off / a.error);
        }
        CHECK(furthest > 0.01);
      }
}

TEST_CASE("a head stays as it is beside linears that do, and where its rows are no whole blocks") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  CHECK(decode_head(*load_tiny_model(memory, kWhole), memory) == nullptr);
  TinyConfig narrow = kWhole;
  narrow.hidden = 96;
  auto model = load_tiny_model(memory, narrow, {.quant = {.format = Format::nf4}});
  CHECK(decode_head(*model, memory) == nullptr);
}
