#include <utility>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

Tensor activate(const Tensor& gate, const Tensor& up) {
  Tensor y(gate.memory(), gate.shape(), gate.type());
  gate.backend().swiglu(
      {.gate = gate.data(), .up = up.data(), .y = y.data(), .n = y.size(), .type = y.type()});
  return y;
}

}  // namespace

Var swiglu(Context& c, const Var& gate, const Var& up) {
  check_operand(c, "swiglu", "gate", gate.value, -1, gate.value.cols());
  check_operand(c, "swiglu", "up", up.value, gate.value.rows(), gate.value.cols());
  Tensor y = activate(gate.value, up.value);
  if (c.tape == nullptr || !(gate.needs_grad() || up.needs_grad())) return {std::move(y)};
  auto backward = [gate = gate.value, up = up.value, gate_slot = gate.slot, up_slot = up.slot](
                      Tape& tape, std::span<const Tensor> dys) {
    Dest dgate = gate_slot >= 0 ? tape.dest(gate_slot) : Dest{};
    // A slot has one destination at a time: when gate and up are one value, the second share is added
    // afterwards.
    bool one = gate_slot == up_slot;
    Dest dup;
    if (one) dup.grad = Tensor(up.memory(), up.shape(), up.type());
    if (!one && up_slot >= 0) dup = tape.dest(up_slot);
    gate.backend().swiglu_backward({.dy = dys[0].data(),
                                    .gate = gate.data(),
                                    .up = up.data(),
                                    .dgate = dgate.grad.data(),
                                    .dup = dup.grad.data(),
                                    .n = gate.size(),
                                    .gate_mode = dgate.mode,
                                    .up_mode = dup.mode,
                                    .type = gate.type()});
    if (one) tape.add(up_slot, dup.grad);
  };
  Var out = c.tape->record(std::move(y), std::move(backward));
  if (c.checkpointing == Checkpointing::selective)  // gate and up are kept for backward anyway
    out.again = std::make_shared<const std::function<Tensor()>>(
        [gate = gate.value, up = up.value] { return activate(gate, up); });
  return out;
}

}  // namespace qlora
