#pragma once
// Answers to generation requests: what makes several requests one batch, and when the text of an answer ends
// it.

#include <functional>
#include <span>
#include <vector>

#include "core/ops/context.h"
#include "eval/lm.h"

namespace qlora {

struct Generator {
  const Model& model;
  Memory& memory;
  DType type = DType::f32;
  const Tokenizer* tokenizer = nullptr;  // for stop strings
  Numerics numerics = Numerics::exact;   // of the new tokens; contexts are always read exactly
  int64_t batch = 16;   // answers that are worked on at a time; fewer where their cache would be too large
  int64_t drafts = -1;  // GenerateOptions::drafts
  bool reuse_prefixes = true;  // contexts of one subject are read once where they begin alike
  // Called with each answer as it ends, in any order. May be empty.
  std::function<void(size_t request, const std::vector<int32_t>& answer)> on_answer = {};
  // Called with each new token of a request; returning false ends its answer. May be empty.
  std::function<bool(size_t request, int32_t token)> on_token = {};
};

// In the order of the requests. `adapter` gives a subject's adapter, null for the base. No answer depends on
// what else is asked. Throws Error(usage) for stop strings without a tokenizer, and what generate() throws.
std::vector<std::vector<int32_t>> generate_answers(const Generator&, std::span<const GenerateRequest>,
                                                   const std::function<Adapter*(SubjectIndex)>& adapter);

}  // namespace qlora
