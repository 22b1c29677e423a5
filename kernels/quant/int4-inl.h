// Int4: 15 evenly spaced levels k / 7, k from -7 to 7. A weight is level(code) * absmax of its block.
//
// This is linear absmax quantization as the QLoRA paper compares against and as bitsandbytes' table `int4`
// has it: the scale is absmax / 7, so that the largest weight of a block is met exactly and zero stays zero.
// (A grid of 16 levels from -8 to 7 would have to give up one of the two, or clip one sign.) Codes are a sign
// bit (8) and a magnitude; code 8 is a second zero, which no weight gets but one that rounds to zero from
// below.
//
// No include guard and no include, like nf4-inl.h.

#ifndef QLORA_HD
#define QLORA_HD
#endif

struct Int4 {
  static constexpr int kBits = 4;
  static constexpr int kLevels = 16;
  static constexpr int kThresholds = 7;
  // |w - decoded| is at most this times absmax: half the gap of 1/7, and rounding.
  static constexpr float kErrorBound = 0.07143f;

  QLORA_HD static constexpr float level(int code) {
    float magnitude = static_cast<float>(code & 7) / 7.0f;
    return (code & 8) != 0 ? -magnitude : magnitude;
  }

  // Ascending, on |x|: the midpoints.
  QLORA_HD static constexpr float threshold(int k) { return (static_cast<float>(k) + 0.5f) / 7.0f; }

  // x = w / absmax, in [-1, 1].
  QLORA_HD static constexpr int encode(float x) {
    float magnitude = x < 0 ? -x : x;
    int code = 0;
    for (int k = 0; k < kThresholds; ++k) code += magnitude > threshold(k);
    return code | (x < 0 ? 8 : 0);
  }
};
