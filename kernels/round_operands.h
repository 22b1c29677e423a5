#pragma once
// What is read as an operand of products again and again, rounded once.

#include <cstdint>

#include "core/base/half.h"

namespace qlora {

// to[i] = from[i] as products with bf16 operands read it, of n elements in host memory; by the kernels of
// the processor, whatever the backend.
void round_operands(const float* from, int64_t n, bf16* to);

}  // namespace qlora
