#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

Var add(Context& c, const Var& a, const Var& b) {
  check_operand(c, "add", "a", a.value, -1, a.value.cols());
  check_operand(c, "add", "b", b.value, a.value.rows(), a.value.cols());
  Tensor y(c.memory, a.value.shape(), c.type);
  c.backend.add({.a = a.value.data(), .b = b.value.data(), .y = y.data(), .n = y.size(), .type = c.type});
  if (c.tape == nullptr || !(a.needs_grad() || b.needs_grad())) return {std::move(y)};
  return c.tape->record(std::move(y), [a = a.slot, b = b.slot](Tape& tape, std::span<const Tensor> dys) {
    if (a >= 0) tape.add(a, dys[0]);
    if (b >= 0) tape.add(b, dys[0]);
  });
}

}  // namespace qlora
