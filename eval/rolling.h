#pragma once
// The log-likelihood of whole texts, longer than a model's context too: a text is cut into windows of which
// each is one log-likelihood request.
//
// Windows are those of lm-eval's loglikelihood_rolling. The first reads [first, t0, ..., t(L-2)] and predicts
// t0 ... t(L-1). Every later one reads the L tokens before its last prediction and predicts what no window
// before did, at most L - context + 1 tokens. So every token is predicted once, and (but in the first window)
// after at least `context` tokens.

#include <cstdint>
#include <span>
#include <vector>

#include "eval/lm.h"

namespace qlora {

struct RollingRequest {
  std::vector<int32_t> tokens;  // of the text; may be empty
  int32_t first = 0;            // what precedes the first token: the model's BOS or EOS
  int64_t max_length = 0;       // L: tokens that a window reads; 0: the model's context length
  int64_t context = 1;          // 1: windows do not overlap; L - stride + 1: they move on by `stride`
  SubjectIndex subject = -1;
};
struct RollingAnswer {
  double log_likelihood = 0;  // sum over the tokens
  int64_t tokens = 0, windows = 0;
};

// The windows of a text. Throws Error(usage) when 1 <= context <= L does not hold.
std::vector<LogLikelihoodRequest> rolling_windows(const RollingRequest&, int64_t context_length);

// One answer a request, in their order. Windows of all requests are asked for together, and added in order.
std::vector<RollingAnswer> rolling_log_likelihood(Lm&, std::span<const RollingRequest>);

}  // namespace qlora
