#pragma once
// Decoding of quantized weights on the host, the plain way: what every faster decoder must equal bit for bit.

#include <cstdint>

#include "kernels/args_matmul.h"

namespace qlora {

// Elements of an absmax array that share one nested absmax.
inline constexpr int64_t kNestedBlock = 256;

// The scale of a block: stored, or from its 8-bit code as f32(f32(code_map[code] * nested_absmax) +
// nested_offset).
inline float block_absmax(const WeightView& w, int64_t block) {
  if (w.absmax != nullptr) return w.absmax[block];
  float scaled = w.code_map[w.absmax_codes[block]] * w.nested_absmax[block / kNestedBlock];
  return scaled + w.nested_offset;
}

// out[0, end - begin) = elements [begin, end) of the flattened matrix: one f32 product level * absmax each.
// REQUIRES: a quantized format, 0 <= begin <= end <= out * in.
void decode_range(const WeightView&, int64_t begin, int64_t end, float* out);

}  // namespace qlora
