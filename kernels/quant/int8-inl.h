// Int8: 255 evenly spaced levels k / 127, k from -127 to 127. A weight is level(code) * absmax of its block.
//
// Linear absmax quantization, as bitsandbytes stores the weights of LLM.int8(): CB = rint(W * 127 / SCB), and
// back W = CB * SCB / 127. But in blocks, like the other formats, not in rows: one path serves them all, and
// an outlier coarsens the levels of its block alone. The division comes first, f32(f32(k / 127) * absmax), so
// that the largest weight of a block is met exactly; zero stays zero. A code is a byte, k in two's
// complement; -128 is no weight's code, and decodes by the same rule.
//
// No include guard and no include, like nf4-inl.h.

#ifndef QLORA_HD
#define QLORA_HD
#endif

struct Int8 {
  static constexpr int kBits = 8;
  static constexpr int kLevels = 256;
  // |w - decoded| is at most this times absmax: half the gap of 1/127, and rounding.
  static constexpr float kErrorBound = 0.003938f;
  // level(k) without a division, with the same bits for every code: fma(k, kStep, k * kStepRest).
  static constexpr float kStep = 0x1.020408p-7f, kStepRest = 0x1.020408p-35f;

  QLORA_HD static constexpr float level(int code) {
    return static_cast<float>(code < 128 ? code : code - 256) / 127.0f;
  }

  // x = w / absmax, in [-1, 1]: the nearest level, a tie goes to the even one; NaN counts as 1. Adding and
  // taking away 1.5 * 2^23 rounds to a whole number.
  QLORA_HD static constexpr int encode(float x) {
    float k = x * 127.0f;
    k = k < 127.0f ? k : 127.0f;
    return static_cast<int>((k + 12582912.0f) - 12582912.0f) & 255;
  }
};
