// FP4 with three exponent bits and no mantissa: a sign bit (8) and the magnitudes 0 and 2^-6 to 2^0, so that
// the largest is 1. A weight is level(code) * absmax of its block. The QLoRA paper compares it (E3M0) with
// the other 4-bit float (fp4-inl.h is its E2M1): levels are dense about zero and wide apart where a block's
// large weights are.
//
// No include guard and no include, like nf4-inl.h.

#ifndef QLORA_HD
#define QLORA_HD
#endif

struct Fp4E3M0 {
  static constexpr int kBits = 4;
  static constexpr int kLevels = 16;
  static constexpr int kThresholds = 7;
  // |w - decoded| is at most this times absmax: half the gap between 1/2 and 1.
  static constexpr float kErrorBound = 0.25f;

  QLORA_HD static constexpr float level(int code) {
    int exponent = code & 7;
    float magnitude = exponent == 0 ? 0.0f : 1.0f / static_cast<float>(1 << (7 - exponent));
    return (code & 8) != 0 ? -magnitude : magnitude;
  }

  // Ascending, on |x|: the midpoints.
  QLORA_HD static constexpr float threshold(int k) { return 0.5f * (level(k) + level(k + 1)); }

  // x = w / absmax, in [-1, 1].
  QLORA_HD static constexpr int encode(float x) {
    float magnitude = x < 0 ? -x : x;
    int code = 0;
    for (int k = 0; k < kThresholds; ++k) code += magnitude > threshold(k);
    return code | (x < 0 ? 8 : 0);
  }
};
