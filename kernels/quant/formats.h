#pragma once
// The quantized formats. Adding one: its header x-inl.h, a line in the enum and in the list below.

#include <cstdint>
#include <string_view>

namespace qlora {

enum class Format : uint8_t { dense, nf4, fp4 };

constexpr std::string_view name_of(Format f) {
  switch (f) {
    case Format::nf4: return "nf4";
    case Format::fp4: return "fp4";
    default: return "dense";
  }
}

// Every registered quantized format, for code and tests that go over all of them.
inline constexpr Format kFormats[] = {Format::nf4, Format::fp4};

// Bytes of packed codes for n elements (4-bit formats: two elements a byte, the first in the high nibble).
constexpr int64_t packed_bytes(Format f, int64_t n) { return f == Format::dense ? 0 : (n + 1) / 2; }

}  // namespace qlora
