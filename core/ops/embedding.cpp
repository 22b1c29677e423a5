#include <utility>
#include <vector>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

Var rows_of(Context& c, const char* op, const Tensor& table, std::span<const int32_t> ids, float scale) {
  QLORA_CHECK(table.type() == c.type || table.type() == DType::bf16, failure,
              "{}: the table holds {} elements, the context computes in {}", op, name_of(table.type()),
              name_of(c.type));
  const auto rows = static_cast<int64_t>(ids.size());
  Tensor y(c.memory, {rows, table.cols()}, c.type);
  c.backend.gather_rows({.table = table.data(),
                         .ids = ids.data(),
                         .y = y.data(),
                         .rows = rows,
                         .cols = table.cols(),
                         .type = c.type,
                         .table_type = table.type(),
                         .scale = scale});
  return {std::move(y)};
}

}  // namespace

Var embedding(Context& c, const Tensor& table, float scale) {
  return rows_of(c, "embedding", table, axis_of(c, "embedding").tokens, scale);
}

Var position_embedding(Context& c, const Tensor& table, int64_t first) {
  std::vector<int32_t> ids = axis_of(c, "position_embedding").positions;
  for (int32_t& id : ids) {
    QLORA_CHECK(id >= 0 && id + first < table.rows(), data,
                "position {} of a sequence is beyond the {} that the model has an embedding for", id,
                table.rows() - first);
    id += static_cast<int32_t>(first);
  }
  return rows_of(c, "position_embedding", table, ids, 1);
}

}  // namespace qlora
