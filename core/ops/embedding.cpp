#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

Var embedding(Context& c, const Tensor& table) {
  const Axis& axis = axis_of(c, "embedding");
  QLORA_CHECK(table.type() == c.type || table.type() == DType::bf16, failure,
              "embedding: the table holds {} elements, the context computes in {}", name_of(table.type()),
              name_of(c.type));
  Tensor y(c.memory, {axis.rows(), table.cols()}, c.type);
  c.backend.gather_rows({.table = table.data(),
                         .ids = axis.tokens.data(),
                         .y = y.data(),
                         .rows = axis.rows(),
                         .cols = table.cols(),
                         .type = c.type,
                         .table_type = table.type()});
  return {std::move(y)};
}

}  // namespace qlora
