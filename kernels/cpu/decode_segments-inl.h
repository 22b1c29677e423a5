// What the whole products of the decode class (decode_rows-inl.h) are given: the base of decode_dots*-inl.h.

constexpr int64_t kSegment = 64;  // values of k, in two halves
constexpr int kWhole = 5792;      // 64 * kWhole^2 < 2^31: the products of a segment meet in one word
constexpr int64_t kSums = 4;      // of an output: segment i goes into sum i % 4
// A segment of one row of x, rounded, in eight pieces. For 4-bit codes: of each half the elements 4i, 4i + 2,
// 4i + 1, 4i + 3, for i from 0 to 7. For 8-bit codes: as they come.
constexpr int64_t kPiece = 16, kArranged = 8 * kPiece;  // bytes

// Rows of codes, `ld` bytes apart, with a scale a segment; `ahead`: what will be read next.
struct DotWeights {
  const uint8_t* codes;
  int64_t ld;
  const float* scales;
  int64_t scales_ld, segments;
  const uint8_t* ahead;
};

// Of a row by itself: where outputs of S streams of codes begin, and the scales of their segments.
template <int S>
struct Alone {
  const uint8_t* codes[S];
  const float* scales[S];
};

// Rows of x: [segments][rows], kArranged bytes and a scale each (more than a vector of scales can be read).
// Where kDotAlone, a row by itself has its segments as place_alone() says.
struct DotRows {
  const uint8_t* segments;
  const float* scales;
};

// Segments of room beside those of all rows, for a row by itself that goes round: with its own as many again,
// and this.
constexpr int64_t kRound = 16;

// Where a rounded segment goes: bytes from piece to piece, and from half to half.
struct Place {
  uint8_t* at;
  int64_t piece, half;
};

// Levels of 8-bit codes, in 127ths: the codes themselves.
struct DotBytes {
  static constexpr int kBits = 8;
};

// The levels of a 4-bit format as whole numbers: level = scale * word.
struct WholeLevels {
  int16_t words[16];
  float scale;
  explicit WholeLevels(const float* levels) {
    float top = 0;
    for (int i = 0; i < 16; ++i) top = __builtin_fmaxf(top, __builtin_fabsf(levels[i]));
    const float factor = top > 0 ? static_cast<float>(kWhole) / top : 0.0f;
    scale = top / static_cast<float>(kWhole);
    for (int i = 0; i < 16; ++i) words[i] = static_cast<int16_t>(__builtin_rintf(levels[i] * factor));
  }
};
