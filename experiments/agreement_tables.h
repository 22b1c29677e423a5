#pragma once
// Agreement, bias and relative scores as people read them, and as JSON.

#include <span>
#include <string>

#include "core/base/json.h"
#include "eval/agreement/agree.h"
#include "eval/agreement/bias.h"
#include "eval/agreement/relative.h"

namespace qlora {

// Estimates as "0.185 [0.160, 0.211]", with a legend below.
std::string print_agreement(const AgreementReport&);
std::string print_bias(std::span<const JudgeBias>);
// `published`: Table 6 of the QLoRA paper beside ours, where a system is in it.
std::string print_relative(std::span<const RelativeScore>, const std::string& reference, bool published);

// Estimates as {"value", "lo", "hi"}; parts, not percent, except for relative scores.
Json agreement_json(const AgreementReport&);
Json bias_json(std::span<const JudgeBias>);
Json relative_json(std::span<const RelativeScore>, const std::string& reference, bool published);

}  // namespace qlora
