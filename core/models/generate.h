#pragma once
// Token generation over a cache: several prompts (each with its adapter or none) at once.

#include <functional>
#include <span>
#include <vector>

#include "core/models/model.h"

namespace qlora {

struct Prompt {
  std::vector<int32_t> tokens;  // not empty
  Adapter* adapter = nullptr;
};

struct GenerateOptions {
  int64_t max_new_tokens = 256;
  // Of the steps that follow the prompts, which themselves are always exact.
  Numerics numerics = Numerics::exact;
  std::vector<int32_t> stop_ids = {};  // generation ends after one of them (it is part of the answer)
  // Called with each new token of prompt i as it appears; returning false ends that prompt. May be empty.
  std::function<bool(size_t prompt, int32_t token)> on_token = {};
};

// Greedy: at every step the first index of the largest logit. Answers do not depend on what shares the batch;
// one ends early where the model has no further positions. A prompt that is empty or too long is an
// Error(usage).
std::vector<std::vector<int32_t>> generate_greedy(const Model&, Memory&, DType, std::span<const Prompt>,
                                                  const GenerateOptions&);

}  // namespace qlora
