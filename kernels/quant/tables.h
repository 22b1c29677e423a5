#pragma once
// The format headers in namespace qlora, and the way from a Format value to its struct.

#include "kernels/quant/formats.h"

namespace qlora {

#include "kernels/quant/fp4-inl.h"
#include "kernels/quant/fp4_e3m0-inl.h"
#include "kernels/quant/int4-inl.h"
#include "kernels/quant/int8-inl.h"
#include "kernels/quant/nf4-inl.h"

// Calls body(Nf4{}) or its like. REQUIRES: a quantized format (dense calls nothing).
template <class Body>
void with_format(Format format, Body&& body) {
  switch (format) {
#define QLORA_CASE(name, Struct) \
  case Format::name:             \
    body(Struct{});              \
    break;
    QLORA_FORMATS(QLORA_CASE)
#undef QLORA_CASE
    case Format::dense:
      break;
  }
}

}  // namespace qlora
