#include <algorithm>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

RopeAngles rope_angles(Context& c, std::span<const float> inv_freq) {
  const Axis& axis = axis_of(c, "rope_angles");
  auto half = static_cast<int64_t>(inv_freq.size());
  RopeAngles angles{Tensor(c.memory, {axis.rows(), half}, c.type),
                    Tensor(c.memory, {axis.rows(), half}, c.type)};
  c.backend.rope_table({.positions = axis.positions.data(),
                        .inv_freq = inv_freq.data(),
                        .cos = angles.cos.data(),
                        .sin = angles.sin.data(),
                        .rows = axis.rows(),
                        .half = half,
                        .type = c.type});
  return angles;
}

Var rope(Context& c, const RopeAngles& angles, const Var& x, int64_t heads) {
  const int64_t rows = angles.cos.rows(), rotary = 2 * angles.cos.cols();
  const int64_t head_dim = std::max(rotary, x.value.cols() / heads);
  check_operand(c, "rope", "x", x.value, rows, heads * head_dim);
  Tensor y(c.memory, x.value.shape(), c.kept_type);
  Rope args{.x = x.value.data(),
            .y = y.data(),
            .cos = angles.cos.data(),
            .sin = angles.sin.data(),
            .rows = rows,
            .heads = heads,
            .head_dim = head_dim,
            .rotary_dim = rotary,
            .type = c.type,
            .y_type = c.kept_type};
  c.backend.rope(args);
  if (c.tape == nullptr || !x.needs_grad()) return {std::move(y)};
  return c.tape->record(std::move(y), [args, angles, slot = x.slot](Tape& tape, std::span<const Tensor> dys) {
    Dest dx = tape.dest(slot);
    Rope back = args;  // its x and y are gone; the sizes and the angles hold
    back.x = dys[0].data();
    back.y = dx.grad.data();
    back.inverse = true;
    back.mode = dx.mode;
    back.y_type = back.type;
    dys[0].backend().rope(back);
  });
}

}  // namespace qlora
