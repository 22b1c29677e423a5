#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

Var embedding(Context& c, const Tensor& table) {
  const Axis& axis = axis_of(c, "embedding");
  check_operand(c, "embedding", "the table", table, -1, table.cols());
  Tensor y(c.memory, {axis.rows(), table.cols()}, c.type);
  c.backend.gather_rows({.table = table.data(),
                         .ids = axis.tokens.data(),
                         .y = y.data(),
                         .rows = axis.rows(),
                         .cols = table.cols(),
                         .type = c.type});
  return {std::move(y)};
}

}  // namespace qlora
