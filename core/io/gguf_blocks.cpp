#include "core/io/gguf_blocks.h"

#include <cstring>

#include "core/base/half.h"

namespace qlora {
namespace {

constexpr GgufTypeInfo kTypes[] = {
    {GgufType::f32, "F32", 1, 4},       {GgufType::f16, "F16", 1, 2},       {GgufType::bf16, "BF16", 1, 2},
    {GgufType::q4_0, "Q4_0", 32, 18},   {GgufType::q4_1, "Q4_1", 32, 20},   {GgufType::q8_0, "Q8_0", 32, 34},
    {GgufType::q4_k, "Q4_K", 256, 144}, {GgufType::q6_k, "Q6_K", 256, 210},
};

template <class T>
float load(const uint8_t* p) {
  T x;
  std::memcpy(&x, p, sizeof x);
  if constexpr (sizeof(T) == 4)
    return x;
  else
    return to_float(x);
}

// f16 scale; 16 bytes whose low nibbles are elements 0..15 and high nibbles 16..31; w = scale * (q - 8).
void q4_0(const uint8_t* p, float* out) {
  const float scale = load<f16>(p);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>((p[2 + i] & 15) - 8) * scale;
    out[i + 16] = static_cast<float>((p[2 + i] >> 4) - 8) * scale;
  }
}

// The same with a minimum: w = scale * q + minimum.
void q4_1(const uint8_t* p, float* out) {
  const float scale = load<f16>(p), minimum = load<f16>(p + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(p[4 + i] & 15) * scale + minimum;
    out[i + 16] = static_cast<float>(p[4 + i] >> 4) * scale + minimum;
  }
}

// f16 scale and 32 signed bytes.
void q8_0(const uint8_t* p, float* out) {
  const float scale = load<f16>(p);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(p[2 + i])) * scale;
}

// f16 super-scale and super-minimum; eight sub-blocks of 32 with a 6-bit scale and minimum each, packed in 12
// bytes: those of the first four in the low six bits, the rest as four low bits in bytes 8..11 and two high
// bits above the first ones. 128 bytes of nibbles, of which 32 bytes hold two sub-blocks. w = (d * scale) * q
// - (dmin * minimum).
void q4_k(const uint8_t* p, float* out) {
  const float d = load<f16>(p), dmin = load<f16>(p + 2);
  const uint8_t* packed = p + 4;
  for (int sub = 0; sub < 8; ++sub) {
    const int j = sub % 4;
    int scale = packed[j] & 63, minimum = packed[j + 4] & 63;
    if (sub >= 4) {
      scale = (packed[j + 8] & 15) | ((packed[j] >> 6) << 4);
      minimum = (packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4);
    }
    const float step = d * static_cast<float>(scale), offset = dmin * static_cast<float>(minimum);
    const uint8_t* nibbles = p + 16 + (sub / 2) * 32;
    for (int i = 0; i < 32; ++i)
      out[sub * 32 + i] = step * static_cast<float>((nibbles[i] >> (4 * (sub % 2))) & 15) - offset;
  }
}

// Two halves of 128: 64 bytes of low nibbles, 32 bytes of four 2-bit high parts; then 16 signed scales for 16
// elements each, and an f16 super-scale. w = (d * scale) * (q - 32).
void q6_k(const uint8_t* p, float* out) {
  const auto* scales = reinterpret_cast<const int8_t*>(p + 192);
  const float d = load<f16>(p + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = (i / 32) % 4, at = i % 32;
    const int low = p[half * 64 + (quarter % 2) * 32 + at] >> (4 * (quarter / 2)) & 15;
    const int high = p[128 + half * 32 + at] >> (2 * quarter) & 3;
    out[i] = d * static_cast<float>(scales[i / 16]) * static_cast<float>((low | high << 4) - 32);
  }
}

}  // namespace

std::span<const GgufTypeInfo> gguf_types() {
  return kTypes;
}

const GgufTypeInfo* find_gguf_type(uint32_t number) {
  for (const GgufTypeInfo& info : kTypes)
    if (static_cast<uint32_t>(info.type) == number) return &info;
  return nullptr;
}

void decode_gguf(const GgufTypeInfo& info, std::span<const std::byte> blocks, float* out) {
  const auto* p = reinterpret_cast<const uint8_t*>(blocks.data());
  for (const uint8_t* end = p + blocks.size(); p != end; p += info.bytes, out += info.elements) {
    switch (info.type) {
      case GgufType::f32:
        *out = load<float>(p);
        break;
      case GgufType::f16:
        *out = load<f16>(p);
        break;
      case GgufType::bf16:
        *out = load<bf16>(p);
        break;
      case GgufType::q4_0:
        q4_0(p, out);
        break;
      case GgufType::q4_1:
        q4_1(p, out);
        break;
      case GgufType::q8_0:
        q8_0(p, out);
        break;
      case GgufType::q4_k:
        q4_k(p, out);
        break;
      case GgufType::q6_k:
        q6_k(p, out);
        break;
    }
  }
}

}  // namespace qlora
