#pragma once
// How what only products read is kept: for backward, and keys and values of earlier rows by a KvCache and by
// prefixes.

#include "core/tensor/tensor.h"

namespace qlora {

// The type of what is kept of rows of `type` that products alone read: bf16, half of f32, where these round
// them to it anyway and the backend takes stored operands (kernels/args_matmul.h), so that no bit depends on
// it; else `type`. The counting backend answers as the backend that it stands for.
DType type_of_kept(const Backend&, DType type, Operands);

// Puts rows where they are kept, `to` being of as many, of their type or of that above.
void keep_rows(const Tensor& rows, const Tensor& to);

}  // namespace qlora
