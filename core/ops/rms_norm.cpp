#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

Var rms_norm(Context& c, const Tensor& weight, const Var& x, double eps) {
  int64_t rows = x.value.rows(), cols = weight.size();
  check_operand(c, "rms_norm", "x", x.value, -1, cols);
  check_operand(c, "rms_norm", "the weight", weight, cols, 1);
  bool record = c.tape != nullptr && x.needs_grad();
  Tensor y(c.memory, x.value.shape(), c.type), rstd;
  if (record) rstd = Tensor(c.memory, {rows}, c.type);
  c.backend.rms_norm({.x = x.value.data(),
                      .w = weight.data(),
                      .y = y.data(),
                      .rstd = rstd.data(),
                      .rows = rows,
                      .cols = cols,
                      .eps = eps,
                      .type = c.type});
  if (!record) return {std::move(y)};
  return c.tape->record(std::move(y),
                        [x = x.value, slot = x.slot, weight, rstd](Tape& tape, std::span<const Tensor> dys) {
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
}

}  // namespace qlora
