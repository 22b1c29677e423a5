#include <utility>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

// As `type`. `up` may be empty: not gated.
Tensor activated(Activation kind, const Tensor& gate, const Tensor& up, DType type) {
  Tensor y(gate.memory(), gate.shape(), type);
  gate.backend().activate({.kind = kind,
                           .gate = gate.data(),
                           .up = up.data(),
                           .y = y.data(),
                           .n = y.size(),
                           .type = gate.type(),
                           .y_type = type});
  return y;
}

// The activation of gate and up, made again: both are kept for backward anyway.
std::shared_ptr<const std::function<Tensor()>> again(Activation kind, const Tensor& gate, const Tensor& up,
                                                     DType type) {
  return std::make_shared<const std::function<Tensor()>>(
      [kind, gate, up, type] { return activated(kind, gate, up, type); });
}

}  // namespace

Var activate(Context& c, Activation kind, const Var& x) {
  check_operand(c, "activate", "x", x.value, -1, x.value.cols());
  // relu's slope can be read off its result, which the linear that follows keeps as well.
  const bool by_result = kind == Activation::relu;
  const DType type = by_result ? c.type : c.kept_type;
  Tensor y = activated(kind, x.value, Tensor(), type);
  if (c.tape == nullptr || !x.needs_grad()) return {std::move(y)};
  auto backward = [kind, kept = by_result ? y : x.value, slot = x.slot](Tape& tape,
                                                                        std::span<const Tensor> dys) {
    const Dest dx = tape.dest(slot);
    kept.backend().activate_backward({.kind = kind,
                                      .dy = dys[0].data(),
                                      .gate = kept.data(),
                                      .dgate = dx.grad.data(),
                                      .n = kept.size(),
                                      .gate_mode = dx.mode,
                                      .type = kept.type()});
  };
  Var out = c.tape->record(std::move(y), std::move(backward));
  if (c.checkpointing == Checkpointing::selective && !by_result)
    out.again = again(kind, x.value, Tensor(), type);
  return out;
}

Var gated(Context& c, Activation kind, const Var& gate, const Var& up) {
  check_operand(c, "gated", "gate", gate.value, -1, gate.value.cols());
  check_operand(c, "gated", "up", up.value, gate.value.rows(), gate.value.cols());
  Tensor y = activated(kind, gate.value, up.value, c.kept_type);
  if (c.tape == nullptr || !(gate.needs_grad() || up.needs_grad())) return {std::move(y)};
  auto backward = [kind, gate = gate.value, up = up.value, gate_slot = gate.slot, up_slot = up.slot](
                      Tape& tape, std::span<const Tensor> dys) {
    Dest dgate = gate_slot >= 0 ? tape.dest(gate_slot) : Dest{};
    // A slot has one destination at a time: when gate and up are one value, the second share is added
    // afterwards.
    bool one = gate_slot == up_slot;
    Dest dup;
    if (one) dup.grad = Tensor(up.memory(), up.shape(), up.type());
    if (!one && up_slot >= 0) dup = tape.dest(up_slot);
    gate.backend().activate_backward({.kind = kind,
                                      .dy = dys[0].data(),
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
  if (c.checkpointing == Checkpointing::selective) out.again = again(kind, gate.value, up.value, c.kept_type);
  return out;
}

Var swiglu(Context& c, const Var& gate, const Var& up) {
  return gated(c, Activation::silu, gate, up);
}

}  // namespace qlora
