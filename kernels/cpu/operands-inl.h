// How a product reads its operands (Operands in kernels/args_matmul.h). Each of these structs says what
// becomes of a packed tile of x or panel of w (both [k][width]), how many rows of it one step of the sum
// takes, and what the step computes.

// f32 as it is.
struct AsStored {
  static constexpr bool kFlush = false;
  static constexpr int kRows = 1;
  QLORA_INLINE int64_t steps(int64_t kc) { return kc; }
  QLORA_INLINE void finish(float*, int64_t, int64_t, bool) {}
  QLORA_INLINE Vec step(Vec x, Vec w, Vec sum) { return fma(x, w, sum); }
};

// The pair that an odd kc leaves incomplete: its second element is zero.
QLORA_INLINE void complete_pair(float* packed, int64_t kc, int64_t width) {
  if (kc % 2 != 0) __builtin_memset(packed + kc * width, 0, static_cast<size_t>(width) * sizeof(float));
}

// bf16 values kept as f32. A step takes two rows, the odd one first: with denormals flushed, that is what
// vdpbf16ps computes.
struct Bf16 {
  static constexpr bool kFlush = true;
  static constexpr int kRows = 2;
  QLORA_INLINE int64_t steps(int64_t kc) { return (kc + 1) / 2; }
  // exact: the values are bf16 already.
  QLORA_INLINE void finish(float* packed, int64_t kc, int64_t width, bool exact) {
    complete_pair(packed, kc, width);
    if (exact) return;
    const int64_t n = kc * width;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(packed + i, round_bf16(load(packed + i)));
    if (i < n) store_n(packed + i, round_bf16(load_n(packed + i, n - i)), n - i);
  }
  QLORA_INLINE Vec step(Vec x, Vec w, Vec sum) { return fma(x, w, sum); }
};

#if QLORA_PAIRS
// Pairs of bf16 values in words of 32 bits, the odd one above. A step is one vdpbf16ps, or what stands for
// it.
struct Bf16Pairs {
  static constexpr bool kFlush = true;
  static constexpr int kRows = 1;
  QLORA_INLINE int64_t steps(int64_t kc) { return (kc + 1) / 2; }
  // In place: row j of the result lies where rows 2j and 2j + 1 have been read. A width that is no multiple
  // of the lanes runs over into the next row, which is written later; the last one into the slack.
  QLORA_INLINE void finish(float* packed, int64_t kc, int64_t width, bool) {
    complete_pair(packed, kc, width);
    for (int64_t j = 0; j < (kc + 1) / 2; ++j)
      for (int64_t i = 0; i < width; i += kLanes) {
        const IVec even = as_int(round_bf16(load(packed + 2 * j * width + i)));
        const IVec odd = as_int(round_bf16(load(packed + (2 * j + 1) * width + i)));
        istore(packed + j * width + i, odd ^ shift_right<16>(even));
      }
  }
  QLORA_INLINE Vec step(Vec x, Vec w, Vec sum) { return dot_pairs(x, w, sum); }
};
using Bf16Best = Bf16Pairs;
#else
using Bf16Best = Bf16;
#endif

// Denormal operands and results count as zeros while one of these lives. The barriers keep the arithmetic
// between loads and stores inside.
class FlushDenormals {
 public:
  explicit FlushDenormals(bool on) : before_(on ? _mm_getcsr() : 0), on_(on) {
    if (on_) _mm_setcsr(before_ | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON);
    asm volatile("" ::: "memory");
  }
  ~FlushDenormals() {
    asm volatile("" ::: "memory");
    if (on_) _mm_setcsr(before_);
  }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned before_;
  bool on_;
};
