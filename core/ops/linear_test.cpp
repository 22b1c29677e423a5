#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/base/half.h"
#include "core/ops/op_lab.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

// A weight behind the virtual interface alone, as rotations and outlier splits are.
class Wrapper final : public FrozenLinear {
 public:
  explicit Wrapper(std::shared_ptr<FrozenWeight> w) : w_(std::move(w)) {}
  const std::string& name() const override { return w_->name(); }
  int64_t out() const override { return w_->out(); }
  int64_t in() const override { return w_->in(); }
  size_t bytes() const override { return w_->bytes(); }
  void forward(const Exec& e, const Tensor& x, std::span<const LoraPart> p, const Tensor& y) const override {
    w_->forward(e, x, p, y);
  }
  void backward(const Exec& e, const Tensor& x, const Tensor& dy, std::span<const LoraPart> p,
                const Tensor& dx, Write mode) const override {
    w_->backward(e, x, dy, p, dx, mode);
  }
  Tensor to_dense(Memory& m, DType t) const override { return w_->to_dense(m, t); }

 private:
  std::shared_ptr<FrozenWeight> w_;
};

struct Fixture : OpLab {
  std::shared_ptr<FrozenWeight> q = weight("q", 6, 5), k = weight("k", 4, 5), v = weight("v", 4, 5);
  Adapter first, second;
  Fixture() {
    first.lora["q"] = lora(2, 6, 5, 0.3f);
    first.lora["v"] = lora(3, 4, 5);
    second.lora["q"] = lora(1, 6, 5);
    axis.spans = {{0, 4, &first, 11, 2}, {4, 10, &second, 12, 5}};
  }
  std::vector<std::vector<double>> take_gradients() {
    std::vector<std::vector<double>> all;
    for (Adapter* a : {&first, &second}) {
      for (Param* p : a->params()) {
        all.push_back(p->grad.to_doubles());
        p->grad.fill_zero();
      }
    }
    return all;
  }
};

double largest(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = worse(worst, std::abs(a[i] - b[i]));
  return worst;
}

}  // namespace

TEST_CASE_METHOD(Fixture, "gradients of grouped linears with adapters equal central differences") {
  auto op = [&](Context& c, std::span<const Var> in) {
    const FrozenLinear* weights[] = {q.get(), k.get(), v.get()};
    std::vector<Var> y = linear(c, weights, in[0]);
    return swiglu(c, add(c, y[1], y[2]), linear(c, *k, in[0]));
  };
  CHECK(gradient_error({random({rows(), 5})}, op) < 1e-8);
}

TEST_CASE_METHOD(Fixture, "wrapped weights give what plain ones give in one call") {
  Tensor x = random({rows(), 5}), dy = random({rows(), 4});
  Wrapper wq(q), wk(k), wv(v);
  std::vector<std::vector<double>> results[2];
  int i = 0;
  for (std::vector<const FrozenLinear*> weights :
       {std::vector<const FrozenLinear*>{q.get(), k.get(), v.get()}, {&wq, &wk, &wv}}) {
    Tape tape;
    Context c = context(&tape, true);
    Var in = tape.input(x);
    std::vector<Var> y = linear(c, weights, in);
    for (const Var& one : y) results[i].push_back(one.value.to_doubles());
    tape.backward(add(c, y[1], y[2]), dy);  // no gradient reaches q
    results[i].push_back(tape.grad(in).to_doubles());
    for (auto& g : take_gradients()) results[i].push_back(g);
    ++i;
  }
  REQUIRE(results[0].size() == results[1].size());
  for (size_t k2 = 0; k2 < results[0].size(); ++k2) CHECK(largest(results[0][k2], results[1][k2]) < 1e-12);
}

TEST_CASE_METHOD(Fixture, "wrapped weights take an x that is kept as a stored operand") {
  const Tensor x = random({rows(), 5}), dy = random({rows(), 4});
  Tensor narrow(memory, x.shape(), DType::bf16);
  for (int64_t i = 0; i < x.size(); ++i) {
    narrow.as<bf16>()[i] = to_bf16(static_cast<float>(x.as<double>()[i]));
    x.as<double>()[i] = to_float(narrow.as<bf16>()[i]);
  }
  const Wrapper wq(q), wv(v);
  const FrozenLinear* weights[] = {&wq, &wv};
  std::vector<std::vector<double>> results[2];
  for (int i = 0; i < 2; ++i) {
    Tape tape;
    Context c = context(&tape, true);
    c.kept_type = DType::bf16;
    const std::vector<Var> y = linear(c, weights, Var{i == 0 ? x : narrow});
    for (const Var& one : y) results[i].push_back(one.value.to_doubles());
    tape.backward(y[1], dy);
    for (auto& g : take_gradients()) results[i].push_back(g);
  }
  CHECK(results[0] == results[1]);
}

TEST_CASE_METHOD(Fixture, "x is kept for backward only when an adapter reads it") {
  size_t with = 0, without = 0;
  for (auto& [weight, kept] : {std::pair(k.get(), &without), std::pair(q.get(), &with)}) {
    Tape tape;
    Context c = context(&tape);
    size_t before = memory.used();
    Var x = tape.input(random({rows(), 5}));
    Var y = linear(c, *weight, x);
    int slot = y.slot;
    size_t output = y.value.bytes();
    x = Var();
    *kept = memory.used() - before - output;
    CHECK(slot >= 0);
  }
  CHECK(without == 0);
  CHECK(with == (10 * 5 + 4 * 2 + 6 * 1) * sizeof(double));  // x, and u of both spans
}

TEST_CASE_METHOD(Fixture, "adapters learn where x itself needs no gradient") {
  Tape tape;
  Context c = context(&tape);
  Var x{random({rows(), 5})};
  Var y = linear(c, *q, x);
  CHECK(y.needs_grad());
  CHECK_FALSE(linear(c, *k, x).needs_grad());
  tape.backward(y, random({rows(), 6}));
  for (Adapter* a : {&first, &second}) {
    std::vector<double> g = a->find("q")->a.grad.to_doubles();
    CHECK(std::any_of(g.begin(), g.end(), [](double d) { return d != 0; }));
  }
}

TEST_CASE_METHOD(Fixture, "dropout acts in training alone and depends on seed and step and name") {
  Tensor x = random({rows(), 5});
  auto run = [&](bool training, uint64_t seed, uint32_t step) {
    axis.spans[0].seed = seed;
    axis.spans[0].step = step;
    Context c = context(nullptr, training);
    return linear(c, *q, Var{x}).value.to_doubles();
  };
  CHECK(run(false, 1, 1) == run(false, 2, 2));
  CHECK(run(true, 1, 1) == run(true, 1, 1));
  CHECK(run(true, 1, 1) != run(false, 1, 1));
  CHECK(run(true, 1, 1) != run(true, 2, 1));
  CHECK(run(true, 1, 1) != run(true, 1, 2));
}

TEST_CASE_METHOD(Fixture, "linears refuse operands that do not fit and name them") {
  Context c = context();
  CHECK_THROWS_WITH(linear(c, *q, Var{random({rows(), 6})}),
                    Contains("linear: x of q is [10, 6], expected [10, 5]"));
  CHECK_THROWS_WITH(linear(c, *q, Var{random({3, 5})}), Contains("[3, 5]"));
  first.lora["q"].b.value = random({5, 2});
  CHECK_THROWS_WITH(linear(c, *q, Var{random({rows(), 5})}),
                    Contains("linear: b is [5, 2], expected [6, 2]"));
  Tape tape;
  Context recording = context(&tape);
  second.lora["k"] = lora(1, 4, 5);
  second.lora["k"].a.grad = Tensor();
  CHECK_THROWS_WITH(linear(recording, *k, Var{random({rows(), 5})}), Contains("no room for its gradient"));
  std::vector<const FrozenLinear*> four(4, k.get());
  CHECK_THROWS_WITH(linear(c, four, Var{random({rows(), 5})}), Contains("one to three"));
}
