#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

Var gather_rows(Context& c, const Var& x, std::span<const int32_t> ids) {
  int64_t total = x.value.rows(), cols = x.value.cols(), rows = static_cast<int64_t>(ids.size());
  check_kept(c, "gather_rows", "x", x.value, -1, cols);
  for (int32_t id : ids) {
    QLORA_CHECK(id >= 0 && id < total, failure, "gather_rows: no row {} in {}", id,
                to_string(x.value.shape()));
  }
  Tensor y(c.memory, {rows, cols}, c.type);
  c.backend.gather_rows({.table = x.value.data(),
                         .ids = ids.data(),
                         .y = y.data(),
                         .rows = rows,
                         .cols = cols,
                         .type = c.type,
                         .table_type = x.value.type()});
  if (c.tape == nullptr || !x.needs_grad()) return {std::move(y)};
  return c.tape->record(std::move(y),
                        [total, slot = x.slot, kept = std::vector<int32_t>(ids.begin(), ids.end())](
                            Tape& tape, std::span<const Tensor> dys) {
                          Dest dx = tape.dest(slot);
                          dys[0].backend().scatter_rows({.x = dys[0].data(),
                                                         .ids = kept.data(),
                                                         .y = dx.grad.data(),
                                                         .rows = dys[0].rows(),
                                                         .cols = dys[0].cols(),
                                                         .total = total,
                                                         .mode = dx.mode,
                                                         .type = dys[0].type()});
                        });
}

Var wanted_of(Context& c, const Var& x) {
  return c.wanted == nullptr ? x : gather_rows(c, x, c.wanted->ids);
}

Context wanted_only(const Context& c) {
  Context few = c;
  if (c.wanted != nullptr) few.axis = &c.wanted->axis;
  few.wanted = nullptr;
  return few;
}

}  // namespace qlora
