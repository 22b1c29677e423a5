#pragma once
// For tests: a model of which a test says only the answers that it is about.

#include "eval/lm.h"

namespace qlora::test {

// Answers nothing.
class SilentLm : public Lm {
 public:
  std::vector<NextTokenAnswer> next_token(std::span<const NextTokenRequest>,
                                          const OnAnswer<NextTokenAnswer>&) override {
    return {};
  }
  std::vector<LogLikelihoodAnswer> log_likelihood(std::span<const LogLikelihoodRequest>,
                                                  const OnAnswer<LogLikelihoodAnswer>&) override {
    return {};
  }
  std::vector<std::vector<int32_t>> generate(std::span<const GenerateRequest>,
                                             const OnAnswer<std::vector<int32_t>>&) override {
    return {};
  }
  int64_t context_length() const override { return 4096; }
};

}  // namespace qlora::test
