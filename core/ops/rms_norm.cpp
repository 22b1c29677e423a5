#include <utility>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

// rstd is written unless it is empty.
Tensor normalize(const Tensor& x, const Tensor& weight, double eps, const Tensor& rstd) {
  Tensor y(x.memory(), x.shape(), x.type());
  x.backend().rms_norm({.x = x.data(),
                        .w = weight.data(),
                        .y = y.data(),
                        .rstd = rstd.data(),
                        .rows = x.rows(),
                        .cols = x.cols(),
                        .eps = eps,
                        .type = x.type()});
  return y;
}

}  // namespace

Var rms_norm(Context& c, const Tensor& weight, const Var& x, double eps) {
  int64_t cols = weight.size();
  check_operand(c, "rms_norm", "x", x.value, -1, cols);
  check_operand(c, "rms_norm", "the weight", weight, cols, 1);
  if (c.tape == nullptr || !x.needs_grad()) return {normalize(x.value, weight, eps, Tensor())};
  Tensor rstd(c.memory, {x.value.rows()}, c.type);
  Tensor y = normalize(x.value, weight, eps, rstd);
  Var out = c.tape->record(
      std::move(y), [x = x.value, slot = x.slot, weight, rstd](Tape& tape, std::span<const Tensor> dys) {
        Dest dx = tape.dest(slot);
        x.backend().rms_norm_backward({.dy = dys[0].data(),
                                       .x = x.data(),
                                       .w = weight.data(),
                                       .rstd = rstd.data(),
                                       .dx = dx.grad.data(),
                                       .rows = x.rows(),
                                       .cols = x.cols(),
                                       .mode = dx.mode,
                                       .type = x.type()});
      });
  if (c.checkpointing == Checkpointing::selective)  // x is kept for backward anyway
    out.again = std::make_shared<const std::function<Tensor()>>(
        [x = x.value, weight, eps] { return normalize(x, weight, eps, Tensor()); });
  return out;
}

}  // namespace qlora
