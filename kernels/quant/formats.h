#pragma once
// The quantized formats. Adding one: its header x-inl.h, and a line in the enum and in each list below.

#include <cstdint>
#include <string_view>

namespace qlora {

enum class Format : uint8_t { dense, nf4, fp4, fp4_e3m0, int4, int8 };

// X(enumerator, struct of its header) for every quantized format.
#define QLORA_FORMATS(X) \
  X(nf4, Nf4)            \
  X(fp4, Fp4)            \
  X(fp4_e3m0, Fp4E3M0)   \
  X(int4, Int4)          \
  X(int8, Int8)

constexpr std::string_view name_of(Format f) {
  switch (f) {
    case Format::nf4:
      return "nf4";
    case Format::fp4:
      return "fp4";
    case Format::fp4_e3m0:
      return "fp4-e3m0";
    case Format::int4:
      return "int4";
    case Format::int8:
      return "int8";
    default:
      return "dense";
  }
}

// Every registered quantized format, for code and tests that go over all of them.
inline constexpr Format kFormats[] = {Format::nf4, Format::fp4, Format::fp4_e3m0, Format::int4, Format::int8};

// Bits of a code; dense weights have none.
constexpr int bits_of(Format f) {
  if (f == Format::dense) return 0;
  return f == Format::int8 ? 8 : 4;
}

// Bytes of packed codes for n elements (of 4 bits: two elements a byte, the first in the high nibble).
constexpr int64_t packed_bytes(Format f, int64_t n) {
  return (n * bits_of(f) + 7) / 8;
}

// Number of blocks that cover n elements; the last one may be short.
constexpr int64_t block_count(int64_t n, int64_t block) {
  return (n + block - 1) / block;
}

}  // namespace qlora
