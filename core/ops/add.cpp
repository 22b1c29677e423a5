#include <algorithm>
#include <utility>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

struct AddBackward {
  int a, b;  // slots
  void operator()(Tape& tape, std::span<const Tensor> dys) const {
    if (a >= 0) tape.add(a, dys[0]);
    if (b >= 0) tape.add(b, dys[0]);
  }
};

}  // namespace

Var add(Context& c, const Var& a, const Var& b) {
  bool record = c.tape != nullptr && (a.needs_grad() || b.needs_grad());
  if (c.unread && record) {  // an operand may have no value either
    Shape shape = a.value   ? a.value.shape()
                  : b.value ? b.value.shape()
                            : c.tape->shape(std::max(a.slot, b.slot));
    return std::move(
        c.tape->record_unread(c.memory, {std::move(shape)}, c.type, AddBackward{a.slot, b.slot}).front());
  }
  check_operand(c, "add", "a", a.value, -1, a.value.cols());
  check_operand(c, "add", "b", b.value, a.value.rows(), a.value.cols());
  Tensor y(c.memory, a.value.shape(), c.type);
  c.backend.add({.a = a.value.data(), .b = b.value.data(), .y = y.data(), .n = y.size(), .type = c.type});
  if (!record) return {std::move(y)};
  return c.tape->record(std::move(y), AddBackward{a.slot, b.slot});
}

}  // namespace qlora
