#include "core/ops/kept_rows.h"

#include "core/base/check.h"
#include "kernels/round_operands.h"

namespace qlora {

DType type_of_kept(const Backend& backend, DType type, Operands operands) {
  return type == DType::f32 && is_bf16(operands) && backend.stores_operands() ? DType::bf16 : type;
}

void keep_rows(const Tensor& rows, const Tensor& to) {
  if (rows.type() == to.type()) return to.copy_from(rows);
  QLORA_CHECK(rows.type() == DType::f32 && to.type() == DType::bf16 && rows.size() == to.size(), failure,
              "rows: cannot keep {} {} as {} {}", name_of(rows.type()), to_string(rows.shape()),
              name_of(to.type()), to_string(to.shape()));
  // The counting backend has no bytes.
  if (to.backend().host_memory()) round_operands(rows.as<float>(), rows.size(), to.as<bf16>());
}

}  // namespace qlora
