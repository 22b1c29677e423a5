#pragma once
// Encoding of weights into blocks of codes, on the host. Byte-identical to bitsandbytes' CUDA kernels with an
// IEEE reciprocal; a block of zeros gets the code of zero (their kernel falls through to code 0 by a NaN).

#include <cstdint>
#include <span>

#include "kernels/quant/formats.h"

namespace qlora {

// Blocks run over the flattened matrix; the last may be short. Per block: absmax = max |w|, code = encode(w *
// (1/absmax)). Codes are packed as packed_bytes() has it; behind an odd end stands the code of zero. A
// block whose absmax is zero or denormal becomes a block of zeros. A block with a NaN or an infinity gets a
// non-finite absmax, and codes without meaning: the caller checks. Runs on all threads, with the best vectors
// that the machine has (and QLORA_BACKEND allows). REQUIRES: a quantized format; an even block; codes has
// room for packed_bytes(), absmax for block_count().
void encode(Format, std::span<const float> weights, int64_t block, uint8_t* codes, float* absmax);
// The plain way: what encode() equals byte for byte.
void encode_plain(Format, std::span<const float> weights, int64_t block, uint8_t* codes, float* absmax);

}  // namespace qlora
