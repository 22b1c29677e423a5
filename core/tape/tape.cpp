#include "core/tape/tape.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace qlora {

namespace {

// y = a + b, all elements.
void add_tensors(const Tensor& a, const Tensor& b, const Tensor& y) {
  y.backend().add(Add{.a = a.data(), .b = b.data(), .y = y.data(), .n = y.size(), .type = y.type()});
}

// Gradients of a stored operand (kernels/args_matmul.h) are f32.
DType gradient_type(DType value) {
  return value == DType::bf16 ? DType::f32 : value;
}

}  // namespace

int Tape::new_slot(Slot slot) {
  slots_.push_back(std::move(slot));
  return static_cast<int>(slots_.size()) - 1;
}

Var Tape::input(Tensor value) {
  int slot = new_slot({&value.memory(), value.shape(), gradient_type(value.type()), Tensor()});
  return {std::move(value), slot};
}

std::vector<Var> Tape::record(std::vector<Tensor> outputs, Backward run) {
  size_t first = slots_.size();
  std::vector<Var> vars;
  for (Tensor& t : outputs) vars.push_back(input(std::move(t)));
  if (mode_ == Mode::keep) steps_.push_back({first, vars.size(), std::move(run)});
  return vars;
}

std::vector<Var> Tape::record_unread(Memory& memory, std::vector<Shape> shapes, DType type, Backward run) {
  size_t first = slots_.size();
  std::vector<Var> vars;
  for (Shape& shape : shapes)
    vars.push_back({Tensor(), new_slot({&memory, std::move(shape), type, Tensor()})});
  if (mode_ == Mode::keep) steps_.push_back({first, vars.size(), std::move(run)});
  return vars;
}

Var Tape::record(Tensor output, Backward run) {
  return std::move(record(std::vector<Tensor>{std::move(output)}, std::move(run)).front());
}

Dest Tape::dest(int slot) {
  Slot& s = slots_[static_cast<size_t>(slot)];
  if (!s.grad) {
    s.grad = Tensor(*s.memory, s.shape, s.type);
    return {s.grad, Write::overwrite};
  }
  if (s.grad.shared()) {  // somebody else still reads these bytes
    Tensor own(*s.memory, s.shape, s.type);
    own.copy_from(s.grad);
    s.grad = std::move(own);
  }
  return {s.grad, Write::accumulate};
}

Tape::Onto Tape::onto(int slot) {
  Slot& s = slots_[static_cast<size_t>(slot)];
  const bool own = s.grad && !s.grad.shared();  // else somebody still reads these bytes
  Tensor before = s.grad;
  if (!own) s.grad = Tensor(*s.memory, s.shape, s.type);
  return {std::move(before), s.grad};
}

void Tape::add(int slot, const Tensor& dx) {
  Slot& s = slots_[static_cast<size_t>(slot)];
  QLORA_CHECK(dx.shape() == s.shape && dx.type() == s.type, failure,
              "tape: a gradient {} {} for a value {} {}", name_of(dx.type()), to_string(dx.shape()),
              name_of(s.type), to_string(s.shape));
  if (!s.grad) {
    s.grad = dx;
  } else if (s.grad.shared()) {
    Tensor sum(*s.memory, s.shape, s.type);
    add_tensors(s.grad, dx, sum);
    s.grad = std::move(sum);
  } else {
    add_tensors(s.grad, dx, s.grad);
  }
}

void Tape::backward(const Var& y, Tensor dy) {
  QLORA_CHECK(y.needs_grad(), failure, "tape: backward from a value that needs no gradient");
  add(y.slot, dy);
  dy = Tensor();
  while (!steps_.empty()) {
    Step step = std::move(steps_.back());
    steps_.pop_back();
    std::vector<Tensor> dys;
    for (size_t i = 0; i < step.count; ++i)
      dys.push_back(std::exchange(slots_[step.first + i].grad, Tensor()));
    bool arrived = std::any_of(dys.begin(), dys.end(), [](const Tensor& t) { return static_cast<bool>(t); });
    if (arrived) step.run(*this, dys);
  }
}

}  // namespace qlora
