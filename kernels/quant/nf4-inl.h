// NF4, the 4-bit NormalFloat of QLoRA (Dettmers et al., 2023): the 16 levels are quantiles of a normal
// distribution, scaled to [-1, 1], with an exact zero. A weight is level(code) * absmax of its block.
//
// No include guard and no include: every instruction set includes this file in a namespace of its own, device
// code too (there QLORA_HD stands for __host__ __device__). The tables are functions, because nvcc refuses
// namespace-scope constexpr tables in device code.

#ifndef QLORA_HD
#define QLORA_HD
#endif

struct Nf4 {
  static constexpr int kBits = 4;
  static constexpr int kLevels = 16;
  static constexpr int kThresholds = 15;
  // |w - decoded| is at most this times absmax: half the widest gap, between -1 and -0.696.
  static constexpr float kErrorBound = 0.1520f;

  // The constants of bitsandbytes (recomputing the quantiles agrees to 1e-7 only).
  QLORA_HD static constexpr float level(int code) {
    constexpr float table[kLevels] = {
        -1.0f,
        -0.6961928009986877f,
        -0.5250730514526367f,
        -0.39491748809814453f,
        -0.28444138169288635f,
        -0.18477343022823334f,
        -0.09105003625154495f,
        0.0f,
        0.07958029955625534f,
        0.16093020141124725f,
        0.24611230194568634f,
        0.33791524171829224f,
        0.44070982933044434f,
        0.5626170039176941f,
        0.7229568362236023f,
        1.0f,
    };
    return table[code];
  }

  // Ascending: the f32 midpoints of neighbouring levels, which are also the constants of bitsandbytes.
  QLORA_HD static constexpr float threshold(int k) {
    constexpr float table[kThresholds] = {
        -0.848096371f, -0.610632896f,  -0.45999527f,  -0.33967942f, -0.234607399f,
        -0.137911737f, -0.0455250181f, 0.0397901498f, 0.120255247f, 0.203521252f,
        0.292013764f,  0.389312536f,   0.501663446f,  0.64278692f,  0.861478448f,
    };
    return table[k];
  }

  // x = w / absmax, in [-1, 1]. The code is the number of thresholds below x.
  QLORA_HD static constexpr int encode(float x) {
    int code = 0;
    for (int k = 0; k < kThresholds; ++k) code += x > threshold(k);
    return code;
  }
};
