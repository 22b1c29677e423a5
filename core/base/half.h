#pragma once
// The two 16-bit floating-point types as storage: conversions to and from float, round to nearest even.
// Includes only the standard library, so that device code may use it.

#include <bit>
#include <cstdint>

namespace qlora {

struct bf16 {
  uint16_t bits = 0;
};
struct f16 {
  uint16_t bits = 0;
};

constexpr float to_float(bf16 h) { return std::bit_cast<float>(static_cast<uint32_t>(h.bits) << 16); }

constexpr bf16 to_bf16(float f) {
  uint32_t u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};  // NaN stays NaN
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

// As a product with bf16 operands reads it (Operands in kernels/args_matmul.h): denormals count as zeros
// before they are rounded.
constexpr bf16 to_operand(float f) {
  const bool denormal = (std::bit_cast<uint32_t>(f) & 0x7f800000u) == 0;
  return {static_cast<uint16_t>(to_bf16(f).bits & (denormal ? 0x8000u : 0xffffu))};
}

constexpr float to_float(f16 h) {
  uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000u) << 16;
  uint32_t exponent = (h.bits >> 10) & 0x1fu, mantissa = h.bits & 0x3ffu;
  if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // zero or subnormal: exact
  return sign != 0 ? -magnitude : magnitude;
}

constexpr f16 to_f16(float f) {
  uint32_t u = std::bit_cast<uint32_t>(f);
  auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (u >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to 2^16 or more: infinity
  if (u < 0x38800000u) {                                                 // below 2^-14: subnormal
    float scaled = std::bit_cast<float>(u) * 0x1p24f;                    // exact
    auto whole = static_cast<uint32_t>(scaled);
    float rest = scaled - static_cast<float>(whole);
    if (rest > 0.5f || (rest == 0.5f && (whole & 1u))) ++whole;
    return {static_cast<uint16_t>(sign | whole)};
  }
  u += 0xfffu + ((u >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((u - 0x38000000u) >> 13))};
}

}  // namespace qlora
