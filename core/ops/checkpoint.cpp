#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "core/base/names.h"
#include "core/ops/offload.h"
#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

constexpr const char* kNames[] = {"none", "selective", "block", "offload"};  // in the order of Checkpointing

// Inside a block that is run again as a whole, everything that its backward reads is kept.
Context with_tape(const Context& c, Tape* tape) {
  Context inner = c;
  inner.tape = tape;
  inner.checkpointing = Checkpointing::none;
  return inner;
}

}  // namespace

const char* name_of(Checkpointing mode) {
  return kNames[static_cast<size_t>(mode)];
}

Checkpointing checkpointing_from_name(std::string_view name) {
  for (Checkpointing mode : kCheckpointings)
    if (name == name_of(mode)) return mode;
  fail(ErrorKind::usage, "{}",
       unknown_name("gradient checkpointing", name,
                    std::vector<std::string>(std::begin(kNames), std::end(kNames))));
}

Context last_ops(const Context& c) {
  Context last = c;
  last.unread = c.recompute;
  return last;
}

Var checkpoint(Context& c, const Var& x, const std::function<Var(Context&, const Var&)>& block,
               const std::shared_ptr<Offload>& offload) {
  if (c.tape == nullptr) return block(c, x);
  // A forgetting tape tells whether the block's output needs a gradient (its adapters may, though x does
  // not).
  Tape forgetting(Tape::Mode::forget);
  Context probe = with_tape(c, &forgetting);
  const size_t place = offload != nullptr ? offload->put(x.value) : 0;
  Var y = block(probe, x.needs_grad() ? forgetting.input(x.value) : x);
  if (offload != nullptr) offload->settle();
  if (!y.needs_grad()) {
    if (offload != nullptr) offload->drop(place);
    return y;
  }
  return c.tape->record(std::move(y.value),
                        [outer = with_tape(c, nullptr), kept = offload != nullptr ? Tensor() : x.value,
                         offload, place, slot = x.slot, block](Tape& tape, std::span<const Tensor> dys) {
                          Tape inner;
                          Context again = with_tape(outer, &inner);
                          again.recompute = true;
                          const Tensor input = offload != nullptr ? offload->take(place) : kept;
                          Var in = slot >= 0 ? inner.input(input) : Var{input};
                          inner.backward(block(again, in), dys[0]);
                          if (slot >= 0 && inner.grad(in)) tape.add(slot, inner.grad(in));
                        });
}

}  // namespace qlora
