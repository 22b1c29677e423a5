#include <utility>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

Context with_tape(const Context& c, Tape* tape) {
  Context inner = c;
  inner.tape = tape;
  return inner;
}

}  // namespace

Var checkpoint(Context& c, const Var& x, const std::function<Var(Context&, const Var&)>& block) {
  if (c.tape == nullptr) return block(c, x);
  // A forgetting tape tells whether the block's output needs a gradient (its adapters may, though x does
  // not).
  Tape forgetting(Tape::Mode::forget);
  Context probe = with_tape(c, &forgetting);
  Var y = block(probe, x.needs_grad() ? forgetting.input(x.value) : x);
  if (!y.needs_grad()) return y;

  return c.tape->record(std::move(y.value), [outer = with_tape(c, nullptr), x = x.value, slot = x.slot,
                                             block](Tape& tape, std::span<const Tensor> dys) {
    Tape inner;
    Context again = with_tape(outer, &inner);
    Var in = slot >= 0 ? inner.input(x) : Var{x};
    inner.backward(block(again, in), dys[0]);
    if (slot >= 0 && inner.grad(in)) tape.add(slot, inner.grad(in));
  });
}

}  // namespace qlora
