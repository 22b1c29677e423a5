#pragma once
// The output head as token steps of the decode class read it. Beside linears of four bits a head of 16 or 32
// is up to half of what a step reads from memory, and these steps wait for nothing else.

#include <memory>

#include "core/models/model.h"

namespace qlora {

// A copy of the head as int8 codes in blocks of 64 (kernels/quant/int8-inl.h): a logit is off by at most
//   sum over blocks of 0.004 absmax * sum |hidden|
// (0.006 where the product reads weights rounded to bf16) beside what the decode class allows. Null where
// the head is to be read as it is: the model's linears are not quantized, or the head is already, or its rows
// are not whole blocks. `memory`: where the copy lies. On the counting backend it has a size and no content.
std::shared_ptr<const FrozenLinear> decode_head(const Model&, Memory&);

}  // namespace qlora
