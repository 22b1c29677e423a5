#pragma once
// The element types of GGUF tensors that we read, and their decoding to f32. A type is a run of equal blocks:
// a few scales and packed integers for 32 or 256 consecutive elements of a row.

#include <cstddef>
#include <cstdint>
#include <span>

namespace qlora {

// Numbers as in the file.
enum class GgufType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q8_0 = 8,
  q4_k = 12,
  q6_k = 14,
  bf16 = 30
};

struct GgufTypeInfo {
  GgufType type;
  const char* name;
  int64_t elements;  // per block
  int64_t bytes;     // per block
};

// All that are known, for messages.
std::span<const GgufTypeInfo> gguf_types();
// Null for a number that is not known.
const GgufTypeInfo* find_gguf_type(uint32_t number);

// Decodes whole blocks, the way of the format's own library bit for bit: every product and sum rounded to
// f32. REQUIRES: blocks.size() is a multiple of the type's bytes; out has room for the elements. Alignment is
// not needed.
void decode_gguf(const GgufTypeInfo&, std::span<const std::byte> blocks, float* out);

}  // namespace qlora
