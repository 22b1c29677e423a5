#pragma once
// Checks of operands that every op makes. Errors name the op, the tensor and the shapes.

#include "core/base/check.h"
#include "core/ops/context.h"

namespace qlora {

// x must be there, with `rows` rows (any when negative) of `cols` elements.
inline void check_shape(const char* op, const char* what, const Tensor& x, int64_t rows, int64_t cols) {
  QLORA_CHECK(static_cast<bool>(x), failure, "{}: {} is empty", op, what);
  QLORA_CHECK((rows < 0 || x.rows() == rows) && x.cols() == cols, failure, "{}: {} is {}, expected [{}, {}]",
              op, what, to_string(x.shape()), rows < 0 ? std::string("rows") : std::to_string(rows), cols);
}

// The same, of the context's compute type.
inline void check_operand(const Context& c, const char* op, const char* what, const Tensor& x, int64_t rows,
                          int64_t cols) {
  QLORA_CHECK(!x || x.type() == c.type, failure, "{}: {} holds {} elements, the context computes in {}", op,
              what, name_of(x.type()), name_of(c.type));
  check_shape(op, what, x, rows, cols);
}

// The same of what products read: also of the type that a tape keeps.
inline void check_kept(const Context& c, const char* op, const char* what, const Tensor& x, int64_t rows,
                       int64_t cols) {
  if (x && x.type() == c.kept_type) return check_shape(op, what, x, rows, cols);
  check_operand(c, op, what, x, rows, cols);
}

// The axis that the op reads.
inline const Axis& axis_of(const Context& c, const char* op) {
  QLORA_CHECK(c.axis != nullptr, failure, "{}: the context has no axis", op);
  return *c.axis;
}

}  // namespace qlora
