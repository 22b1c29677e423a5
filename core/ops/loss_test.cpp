#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/ops/op_lab.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

double log_sum_exp(const std::vector<double>& v) {
  double sum = 0;
  for (double x : v) sum += std::exp(x);
  return std::log(sum);
}

}  // namespace

TEST_CASE_METHOD(OpLab, "losses are those of the logits and zero where there is no label") {
  Context c = context();
  auto head = weight("head", 9, 4);
  Var x{random({rows(), 4})};
  std::vector<int32_t> targets = {-100, 3, 8, -1, 0, 5, -100, 2, 2, 7};
  for (double softcap : {0.0, 0.5}) {
    std::vector<double> losses = lm_loss(c, {*head, softcap}, x, targets);
    REQUIRE(losses.size() == targets.size());
    for (int32_t i = 0; i < 10; ++i) {
      auto at = static_cast<size_t>(i);
      if (targets[at] < 0) {
        CHECK(losses[at] == 0);
        continue;
      }
      std::vector<double> logits = logits_of(c, {*head, softcap}, x.value, std::span(&i, 1)).to_doubles();
      CHECK(losses[at] == Approx(log_sum_exp(logits) - logits[static_cast<size_t>(targets[at])]));
    }
  }
}

TEST_CASE_METHOD(OpLab, "a softcap bends the logits that leave the model") {
  Context c = context();
  auto head = weight("head", 9, 4);
  const Tensor x = random({1, 4});
  const std::vector<int32_t> row = {0};
  const std::vector<double> plain = logits_of(c, {*head}, x, row).to_doubles(),
                            bent = logits_of(c, {*head, 0.5}, x, row).to_doubles();
  for (size_t i = 0; i < plain.size(); ++i) CHECK(bent[i] == Approx(0.5 * std::tanh(plain[i] / 0.5)));
}

TEST_CASE_METHOD(OpLab, "the gradient of the summed loss equals central differences") {
  auto head = weight("head", 9, 4);
  Tensor x = random({rows(), 4});
  std::vector<int32_t> targets = {-100, 3, 8, -1, 0, 5, -100, 2, 2, 7};
  for (double softcap : {0.0, 0.5}) {
    Tape tape;
    Context c = context(&tape), plain = context();
    Var in = tape.input(x);
    lm_loss(c, {*head, softcap}, add(c, in, in), targets);
    std::vector<double> found = tape.grad(in).to_doubles();
    auto total = [&] {
      double sum = 0;
      for (double l : lm_loss(plain, {*head, softcap}, add(plain, Var{x}, Var{x}), targets)) sum += l;
      return sum;
    };
    for (int64_t i = 0; i < x.size(); ++i) {
      double* p = x.as<double>() + i;
      const double h = 1e-5, kept = *p;
      *p = kept + h;
      double up = total();
      *p = kept - h;
      double down = total();
      *p = kept;
      CHECK(found[static_cast<size_t>(i)] == Approx((up - down) / (2 * h)).margin(1e-8));
    }
  }
}

TEST_CASE_METHOD(OpLab, "rows are taken in chunks and no chunk changes a bit") {
  const int64_t vocab = 150000, n = 60;  // chunks of 55 rows in f64
  OpLab lab({n});
  auto head = lab.weight("head", vocab, 2);
  Tensor x = lab.random({n, 2});
  std::vector<int32_t> targets(static_cast<size_t>(n));
  for (size_t i = 0; i < targets.size(); ++i) targets[i] = static_cast<int32_t>(i * 2000);
  Tape tape;
  Context c = lab.context(&tape);
  Var in = tape.input(x);
  lab.memory.reset_peak();
  std::vector<double> losses = lm_loss(c, {*head}, in, targets);
  CHECK(lab.memory.peak(Tag::scratch) < (size_t{65} << 20));  // 60 rows of logits would be 72 MB
  CHECK(lab.memory.used(Tag::scratch) == 0);
  std::vector<double> gradient = tape.grad(in).to_doubles();
  for (size_t row : {size_t{0}, size_t{54}, size_t{55}, size_t{59}}) {
    std::vector<int32_t> only(targets.size(), -100);
    only[row] = targets[row];
    Tape other;
    Context alone = lab.context(&other);
    Var again = other.input(x);
    CHECK(lm_loss(alone, {*head}, again, only)[row] == losses[row]);
    std::vector<double> g = other.grad(again).to_doubles();
    CHECK(g[2 * row] == gradient[2 * row]);
    CHECK(g[2 * row + 1] == gradient[2 * row + 1]);
  }
}

TEST_CASE_METHOD(OpLab, "a batch without labels has no loss and no gradients") {
  Tape tape;
  Context c = context(&tape);
  auto head = weight("head", 9, 4);
  Var in = tape.input(random({rows(), 4}));
  std::vector<double> losses = lm_loss(c, {*head}, in, std::vector<int32_t>(10, -100));
  CHECK(losses == std::vector<double>(10, 0.0));
  CHECK_FALSE(tape.grad(in));
}

TEST_CASE_METHOD(OpLab, "targets and rows that do not exist are refused") {
  Context c = context();
  auto head = weight("head", 9, 4);
  Var x{random({rows(), 4})};
  std::vector<int32_t> targets(10, 9);
  CHECK_THROWS_WITH(lm_loss(c, {*head}, x, targets), Contains("target 9 of row 0 is outside 0..8"));
  CHECK_THROWS_WITH(lm_loss(c, {*head}, x, std::vector<int32_t>(9, 1)), Contains("[10, 4], expected [9, 4]"));
  CHECK_THROWS_WITH(logits_of(c, {*head}, x.value, std::vector<int32_t>{10}), Contains("no row 10"));
}
