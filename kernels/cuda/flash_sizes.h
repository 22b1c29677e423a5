#pragma once
// Which attention runs on tensor cores (flash.cuh), and what it rounds first: for the kernels and for the
// plan of their memory (kernels/device_scratch.h).

#include <algorithm>

#include "kernels/args_attention.h"

namespace qlora::cuda {

inline bool flash_takes(const Attention& a) {
  const int64_t dim = a.head_dim;
  return is_bf16(a.operands) && a.scale > 0 &&
         (dim == 64 || dim == 80 || dim == 96 || dim == 128 || dim == 256);
}

// Keys and values are rounded first, once for all that read them, except where every sequence has so few
// queries that it rounds them as it reads them (token steps).
inline constexpr int64_t kFewQueries = 16;
inline bool rounds_keys_first(const Attention& a) {
  return std::any_of(a.sequences.begin(), a.sequences.end(),
                     [](const SequenceSpan& s) { return s.q_len > kFewQueries; });
}

}  // namespace qlora::cuda
