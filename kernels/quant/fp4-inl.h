// FP4 of bitsandbytes: a sign bit (8) and eight magnitudes in the bit order of a 4-bit float (one sign, two
// exponent, one mantissa bit, with a bias that puts the largest at 1). A weight is level(code) * absmax of
// its block.
//
// No include guard and no include, like nf4-inl.h.

#ifndef QLORA_HD
#define QLORA_HD
#endif

struct Fp4 {
  static constexpr int kBits = 4;
  static constexpr int kLevels = 16;
  static constexpr int kThresholds = 7;
  // |w - decoded| is at most this times absmax: half the gap between 2/3 and 1, and the rounding of the
  // constants.
  static constexpr float kErrorBound = 0.1667f;

  QLORA_HD static constexpr float level(int code) {
    constexpr float table[kLevels / 2] = {0.0f, 0.005208333333f, 0.66666667f, 1.0f, 0.33333333f,
                                          0.5f, 0.16666667f,     0.25f};
    float magnitude = table[code & 7];
    return (code & 8) != 0 ? -magnitude : magnitude;
  }

  // Ascending, on |x|. The constants of the CUDA source: not exactly the midpoints.
  QLORA_HD static constexpr float threshold(int k) {
    constexpr float table[kThresholds] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                          0.4166667f,  0.583333f,  0.8333333f};
    return table[k];
  }

  // x = w / absmax, in [-1, 1]. Magnitudes ascend through the codes 0 1 6 7 4 5 2 3: where bit 1 of the rank
  // is set, bit 2 is flipped. A negative x that rounds to zero keeps its sign (code 8).
  QLORA_HD static constexpr int encode(float x) {
    float magnitude = x < 0 ? -x : x;
    int rank = 0;
    for (int k = 0; k < kThresholds; ++k) rank += magnitude > threshold(k);
    return (rank ^ ((rank & 2) << 1)) | (x < 0 ? 8 : 0);
  }
};
