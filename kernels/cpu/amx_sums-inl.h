// Sums in the order of AMX (Operands::bf16_amx) by multiply-adds, on operands packed as Bf16 packs them: the
// bits of amx_tiles-inl.h on every processor.

// Results of 32 steps of k at a time: even elements, then odd ones, each a chain from zero.
constexpr int64_t kAmxDepth = 32;

// y of a tile, as tile() of gemm-inl.h has it. Sums wait in memory while the registers hold a chain of each.
static void amx_sums_tile(int64_t rows_of_y, int64_t kc, const float* a, const float* b, Destination d,
                          int64_t cols) {
  constexpr int R = kMr;
  alignas(64) float sums[R * kNr], evens[R * kNr];
  for (int i = 0; i < R * kNr; i += kLanes) {
    store(sums + i, zero());
    store(evens + i, zero());
  }
  const int64_t rows = (kc + 1) / 2 * 2;  // of the packed operands: an odd kc is completed
  for (int64_t k = 0; k < rows; k += kAmxDepth) {
    const int64_t end = smaller(rows, k + kAmxDepth);
    for (int odd = 0; odd < 2; ++odd) {
      Vec s[R][2];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) s[r][0] = s[r][1] = zero();
      for (int64_t i = k + odd; i < end; i += 2) {
        const Vec b0 = load(b + i * kNr), b1 = load(b + i * kNr + kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const Vec x = set1(a[i * kMr + r]);
          s[r][0] = fma(x, b0, s[r][0]);
          s[r][1] = fma(x, b1, s[r][1]);
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          // The zeros that fill up a step make +0 of -0.
          if (end < k + kAmxDepth) s[r][h] = s[r][h] + zero();
          float* even = evens + r * kNr + h * kLanes;
          float* sum = sums + r * kNr + h * kLanes;
          if (odd == 0)
            store(even, s[r][h]);
          else
            store(sum, load(sum) + (load(even) + s[r][h]));
        }
    }
  }
  add_sums(sums, rows_of_y, d, cols);
}

// Rows that are missing of a packed tile are zeros.
QLORA_INLINE void multiply_tile(AmxSums, int64_t rows, int64_t kc, const float* a, const float* b,
                                Destination d, int64_t cols) {
  amx_sums_tile(rows, kc, a, b, d, cols);
}
