#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/tape/tape.h"

using namespace qlora;

namespace {

struct Fixture {
  std::unique_ptr<Backend> backend = make_backend("reference");
  Memory memory{*backend};
  Tensor make(std::vector<float> v) {
    return Tensor::from_floats(memory, {static_cast<int64_t>(v.size())}, DType::f32, v);
  }
  // y = a + b, whose gradient goes to both.
  Var sum(Tape& tape, const Var& a, const Var& b) {
    Tensor y(memory, a.value.shape(), DType::f32);
    backend->add({.a = a.value.data(), .b = b.value.data(), .y = y.data(), .n = y.size()});
    return tape.record(y, [a = a.slot, b = b.slot](Tape& t, std::span<const Tensor> dys) {
      t.add(a, dys[0]);
      t.add(b, dys[0]);
    });
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "gradients of a value used several times add up") {
  Tape tape;
  Var x = tape.input(make({1, 2})), z = tape.input(make({5, 5}));
  Var y = sum(tape, sum(tape, x, x), sum(tape, x, z));
  tape.backward(y, make({1, 10}));
  CHECK(tape.grad(x).to_floats() == std::vector<float>{3, 30});
  CHECK(tape.grad(z).to_floats() == std::vector<float>{1, 10});
}

TEST_CASE_METHOD(Fixture, "the first writer overwrites and later ones accumulate") {
  Tape tape;
  Var x = tape.input(make({1, 2}));
  auto write = [&](float value) {
    return tape.record(make({0, 0}), [slot = x.slot, value](Tape& t, std::span<const Tensor>) {
      Dest d = t.dest(slot);
      float* p = d.grad.as<float>();
      for (int i = 0; i < 2; ++i) p[i] = d.mode == Write::overwrite ? value : p[i] + value;
    });
  };
  Var y = sum(tape, write(2), write(5));
  tape.backward(y, make({1, 1}));
  CHECK(tape.grad(x).to_floats() == std::vector<float>{7, 7});
}

TEST_CASE_METHOD(Fixture, "a gradient shared by two values is copied before one of them is added to") {
  Tape tape;
  Var x = tape.input(make({0})), z = tape.input(make({0}));
  Var once = sum(tape, x, z);      // runs last: x has a gradient by then
  Var twice = sum(tape, x, once);  // x and once share dy
  Tensor dy = make({1});
  tape.backward(twice, dy);
  CHECK(tape.grad(x).to_floats() == std::vector<float>{2});
  CHECK(tape.grad(z).to_floats() == std::vector<float>{1});
  CHECK(dy.to_floats() == std::vector<float>{1});
}

TEST_CASE_METHOD(Fixture, "a closure and what it captured are gone once it has run") {
  Tape tape;
  Var x = tape.input(make({1}));
  size_t during = 0;
  {
    Tensor big = Tensor::zeros(memory, {1000}, DType::f32);
    Var y = tape.record(make({0}),
                        [big, slot = x.slot](Tape& t, std::span<const Tensor> dys) { t.add(slot, dys[0]); });
    big = Tensor();
    Var z = tape.record(make({0}), [&, slot = y.slot](Tape& t, std::span<const Tensor> dys) {
      during = memory.used();
      t.add(slot, dys[0]);
    });
    tape.backward(z, make({1}));
  }
  CHECK(during > 4000);
  CHECK(memory.used() < 4000);
}

TEST_CASE_METHOD(Fixture, "steps without a gradient are skipped and a forgetting tape keeps none") {
  Tape tape;
  Var x = tape.input(make({1}));
  bool ran = false;
  tape.record(make({0}), [&](Tape&, std::span<const Tensor>) { ran = true; });
  tape.backward(sum(tape, x, x), make({1}));
  CHECK_FALSE(ran);

  Tape forgetting(Tape::Mode::forget);
  auto kept = std::make_shared<int>(1);
  Var y = forgetting.record(make({0}), [kept](Tape&, std::span<const Tensor>) {});
  CHECK(y.needs_grad());
  CHECK(kept.use_count() == 1);
}

TEST_CASE_METHOD(Fixture, "a gradient of another shape is refused") {
  Tape tape;
  Var x = tape.input(make({1, 2}));
  CHECK_THROWS_AS(tape.add(x.slot, make({1})), Error);
  CHECK_THROWS_AS(tape.backward(Var{make({1})}, make({1})), Error);
}
