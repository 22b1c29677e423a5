#include <catch2/catch.hpp>

#include "core/ops/op_lab.h"

using namespace qlora;
using namespace qlora::test;

namespace {

struct Fixture : OpLab {
  std::shared_ptr<FrozenWeight> w = weight("w", 6, 6);
  Tensor norm = random({6});
  Adapter adapter;
  Fixture() { adapter.lora["w"] = lora(2, 6, 6, 0.2f); }

  Var block(Context& c, const Var& in) {
    Var h = rms_norm(c, norm, in, 1e-5);
    return add(c, in, linear(c, *w, swiglu(c, h, linear(c, *w, h))));
  }
  // Output, gradient of x (when wanted), gradients of the adapter.
  std::vector<std::vector<double>> run(bool checkpointing, bool wants_dx) {
    Tape tape;
    Context c = context(&tape, true);
    Var in = wants_dx ? tape.input(x) : Var{x};
    auto body = [this](Context& inner, const Var& v) { return block(inner, v); };
    Var y = checkpointing ? checkpoint(c, checkpoint(c, in, body), body) : body(c, body(c, in));
    std::vector<std::vector<double>> all = {y.value.to_doubles()};
    tape.backward(y, dy);
    if (wants_dx) all.push_back(tape.grad(in).to_doubles());
    for (Param* p : adapter.params()) {
      all.push_back(p->grad.to_doubles());
      p->grad.fill_zero();
    }
    return all;
  }
  Tensor x = random({rows(), 6}), dy = random({rows(), 6});
};

}  // namespace

TEST_CASE_METHOD(Fixture, "running blocks again gives the bits of keeping everything") {
  axis.spans = {{0, rows(), &adapter, 3, 4}};
  for (bool wants_dx : {true, false}) CHECK(run(true, wants_dx) == run(false, wants_dx));
}

TEST_CASE_METHOD(Fixture, "a block keeps its input alone until its gradient is wanted") {
  axis.spans = {{0, rows(), &adapter, 3, 4}};
  Tape tape;
  Context c = context(&tape);
  Var in = tape.input(x);
  size_t before = memory.used();
  Var y = checkpoint(c, in, [this](Context& inner, const Var& v) { return block(inner, v); });
  CHECK(memory.used() - before == y.value.bytes());
}

TEST_CASE_METHOD(Fixture, "a block without adapters whose input needs no gradient is not run again") {
  Tape tape;
  Context c = context(&tape);
  int runs = 0;
  auto body = [&](Context& inner, const Var& v) {
    ++runs;
    return block(inner, v);
  };
  CHECK_FALSE(checkpoint(c, Var{x}, body).needs_grad());
  CHECK(runs == 1);
  Var in = tape.input(x);
  tape.backward(checkpoint(c, in, body), dy);
  CHECK(runs == 3);
  Context plain = context();
  CHECK_FALSE(checkpoint(plain, Var{x}, body).needs_grad());
}
