#pragma once
// Reverse-mode differentiation over fused ops. An op computes its outputs at once and records one closure.
// What the closure captures is exactly what stays in memory for backward; it is freed as soon as the closure
// has run.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/tensor/tensor.h"

namespace qlora {

// Something that learns. The gradient always accumulates, across micro-batches too.
struct Param {
  std::string name;
  Tensor value, grad;
};

// A value on the tape, or (slot < 0) one that no gradient must reach.
struct Var {
  Tensor value;
  int slot = -1;
  // How to make the value again, bit for bit, from what is kept anyway; null: it must be kept where it is
  // needed.
  std::shared_ptr<const std::function<Tensor()>> again = nullptr;
  bool needs_grad() const { return slot >= 0; }
};

// Where a backward kernel writes d(x), and how: the first writer overwrites, later ones accumulate.
struct Dest {
  Tensor grad;
  Write mode = Write::overwrite;
};

class Tape {
 public:
  // Gets the gradients of the op's outputs, in order; an empty tensor where no gradient arrived. Captures
  // slots, never Vars (a Var holds its value), and only those tensors that it reads. Not called when no
  // gradient arrived at all.
  using Backward = std::function<void(Tape&, std::span<const Tensor> dys)>;

  // `forget` hands out slots but drops the closures: it finds out which outputs need gradients
  // (checkpointing).
  enum class Mode : uint8_t { keep, forget };
  explicit Tape(Mode mode = Mode::keep) : mode_(mode) {}

  Var input(Tensor);  // a leaf whose gradient we want
  std::vector<Var> record(std::vector<Tensor> outputs, Backward);
  Var record(Tensor output, Backward);
  // Outputs that nobody reads: slots without values.
  std::vector<Var> record_unread(Memory&, std::vector<Shape>, DType, Backward);

  // Where the gradient of the variable with this slot goes. REQUIRES: slot >= 0; what an earlier call
  // returned for the same slot is written and gone.
  Dest dest(int slot);
  // The same for a kernel that reads what has arrived so far and writes the sum elsewhere.
  struct Onto {
    Tensor before;  // may be empty, or `sum` itself
    Tensor sum;
  };
  Onto onto(int slot);
  // Adds a whole gradient. The first one is taken as it is, without a copy: shared bytes are never written
  // to.
  void add(int slot, const Tensor& dx);
  // Runs the closures, last to first, and frees each after it has run. The gradients of inputs stay readable.
  // REQUIRES: y.needs_grad(); dy has y's shape.
  void backward(const Var& y, Tensor dy);
  // The shape of the variable with this slot.
  const Shape& shape(int slot) const { return slots_[static_cast<size_t>(slot)].shape; }
  // The gradient that has arrived at an input; empty when none has.
  Tensor grad(const Var& x) const { return slots_[static_cast<size_t>(x.slot)].grad; }

 private:
  struct Slot {
    Memory* memory;
    Shape shape;
    DType type;
    Tensor grad;
  };
  struct Step {
    size_t first = 0, count = 0;  // output slots
    Backward run;
  };
  int new_slot(Slot);

  Mode mode_;
  std::vector<Step> steps_;
  std::vector<Slot> slots_;
};

}  // namespace qlora
