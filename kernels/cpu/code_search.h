#pragma once
// The tables by which the SIMD kernels encode weights, from a format's own scalar definition.

#include <cmath>
#include <limits>

#include "kernels/cpu/kernels.h"
#include "kernels/quant/tables.h"

namespace qlora::cpu {

// A 4-bit format has its thresholds either on x, or on |x| with the sign as a bit of the code. Comparisons of
// the second kind go the other way below zero (x < -t), which is "not above the next number below -t". Where
// a cell holds two boundaries, the format is too fine about zero for this search: `usable` is false.
template <class F>
CodeSearch make_code_search() {
  static_assert(F::kLevels == 16 && (F::kThresholds == 15 || F::kThresholds == 7));
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  auto below = [](float x) { return std::nextafter(x, -kInfinity); };
  CodeSearch s;
  for (int k = 0; k < F::kThresholds; ++k) {
    if constexpr (F::kThresholds == 15) {
      s.boundaries[k] = F::threshold(k);
    } else {
      s.boundaries[6 - k] = below(-F::threshold(k));
      s.boundaries[8 + k] = F::threshold(k);
    }
  }
  if constexpr (F::kThresholds == 7) s.boundaries[7] = below(0);
  s.boundaries[15] = kInfinity;
  // A boundary itself has the code of what lies below it.
  for (int r = 0; r < 16; ++r) s.codes[r] = static_cast<uint8_t>(F::encode(s.boundaries[r]));
  for (int cell = -16; cell < 16; ++cell)
    for (int k = 0; k < 15; ++k)
      if (std::floor(std::fma(s.boundaries[k], kCells, 0.0f)) < static_cast<float>(cell)) ++s.base[cell & 31];
  // The boundary just below zero decides between cells, in none.
  for (int cell = -16; cell < 16; ++cell) {
    int inside = 0;
    for (int k = 0; k < 15; ++k)
      inside += (F::kThresholds == 15 || k != 7) &&
                std::floor(std::fma(s.boundaries[k], kCells, 0.0f)) == static_cast<float>(cell);
    s.usable = s.usable && inside <= 1;
  }
  const int nan = F::encode(std::numeric_limits<float>::quiet_NaN());
  for (int r = 0; r < 16; ++r)
    if (s.codes[r] == nan) s.like_nan = r < 15 ? s.boundaries[r] : 1.0f;
  s.zero = static_cast<uint8_t>(F::encode(0.0f));
  return s;
}

// Of every registered format. REQUIRES: a quantized format.
inline const CodeSearch& code_search(Format format) {
  struct All {
    CodeSearch of[std::size(kFormats) + 1];
    All() {
      for (Format f : kFormats)
        with_format(f, [&]<class F>(F) {
          CodeSearch& search = of[static_cast<int>(f)];
          if constexpr (F::kBits == 4)
            search = make_code_search<F>();
          else
            search.bits = F::kBits;
        });
    }
  };
  static const All all;
  return all.of[static_cast<int>(format)];
}

}  // namespace qlora::cpu
