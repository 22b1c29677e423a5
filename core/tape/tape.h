#pragma once
// Reverse-mode differentiation over fused ops. An op computes its outputs at once and records one closure. What the
// closure captures is exactly what stays in memory for backward; it is freed as soon as the closure has run.

#include <functional>
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
  bool needs_grad() const { return slot >= 0; }
};

// Where a backward kernel writes d(x), and how: the first writer overwrites, later ones accumulate.
struct Dest {
  Tensor grad;
  Write mode = Write::overwrite;
};

class Tape {
 public:
  // Gets the gradients of the op's outputs, in order; an empty tensor where no gradient arrived.
  using Backward = std::function<void(Tape&, std::span<const Tensor> dys)>;

  Var input(Tensor);  // a leaf whose gradient we want
  std::vector<Var> record(std::vector<Tensor> outputs, Backward);
  Var record(Tensor output, Backward);

  // REQUIRES: x.needs_grad().
  Dest dest(const Var& x);
  // Adds a whole gradient to x's (a copy when it is the first).
  void add(const Var& x, const Tensor& dx);
  // Runs the closures, last to first, and frees each after it has run. The gradients of inputs stay readable.
  void backward(const Var& y, Tensor dy);
  Tensor grad(const Var& x) const { return grads_[static_cast<size_t>(x.slot)]; }

 private:
  struct Step {
    int first = 0, count = 0;  // output slots
    Backward run;
  };
  std::vector<Step> steps_;
  std::vector<Tensor> grads_;
};

}  // namespace qlora
