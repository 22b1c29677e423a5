#pragma once
// Arguments of choosing tokens from logits.

#include <cstdint>
#include <span>

#include "core/base/dtype.h"

namespace qlora {

// How the token of one row is chosen; what the settings mean is said in core/models/sampling.h.
struct TokenChoice {
  double temperature = 0;  // 0: the first index of the largest logit
  double top_p = 1;        // 1: all tokens
  int64_t top_k = 0;       // 0: all tokens
  uint64_t random = 0;     // uniform: where in the mass of the kept tokens the drawn one lies
  float penalty = 1;       // of the tokens Sample::seen[seen_begin .. seen_end)
  int32_t seen_begin = 0, seen_end = 0;
};

// tokens[row] = the token of the row's logits x, read as f32. The same token on every backend:
//   1. seen tokens: x = x < 0 ? x * penalty : x / penalty
//   2. temperature 0: the first index of the largest x, and no more
//   3. weight = a whole number, 2^40 exp((x - largest) / temperature) as draw.h computes it; sums of them
//   have no order.
//      The ranking of the tokens: the larger x first, of equal ones the smaller index.
//   4. top_k: the tokens whose x is at least that of the k-th of the ranking are kept
//   5. top_p: of them, the first of the ranking whose weights reach top_p of the mass of the kept
//   (wanted_mass)
//   6. the first token of the ranking at which the sum of the weights of what is kept exceeds
//   place_in(random, its mass)
// -1 where a logit is NaN or +infinity, or all are -infinity.
struct Sample {
  void* logits = nullptr;                     // [rows, vocab]; undefined afterwards
  std::span<const TokenChoice> choices = {};  // host memory, [rows]
  std::span<const int32_t> seen = {};         // host memory; the tokens of one row are distinct
  int32_t* tokens = nullptr;                  // [rows], device memory
  int64_t rows = 0, vocab = 0;                // vocab below 2^23
  DType type = DType::f32;
};

}  // namespace qlora
