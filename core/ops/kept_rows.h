#pragma once
// How keys and values of earlier rows are kept: by a KvCache, and by prefixes.

#include "core/tensor/tensor.h"

namespace qlora {

// The type of what is kept of keys and values of `type`: bf16, half of f32, where attention reads them
// rounded to it anyway (Attention::kv_type), so that no bit depends on it; else `type`. The counting backend
// answers as the backend that it stands for.
DType type_of_kept(const Backend&, DType type, Operands);

// Puts rows of keys or values where they are kept, `to` being of as many, of their type or of that above.
void keep_rows(const Tensor& rows, const Tensor& to);

}  // namespace qlora
