#include "eval/rolling.h"

#include <algorithm>

#include "core/base/check.h"
#include "eval/answer_slots.h"

namespace qlora {

std::vector<LogLikelihoodRequest> rolling_windows(const RollingRequest& r, int64_t context_length) {
  const int64_t longest = r.max_length > 0 ? r.max_length : context_length;
  const auto all = static_cast<int64_t>(r.tokens.size());
  QLORA_CHECK(r.context >= 1 && r.context <= longest, usage,
              "rolling log-likelihood: windows of {} tokens cannot keep {} of the window before", longest,
              r.context);
  std::vector<LogLikelihoodRequest> windows;
  for (int64_t done = 0; done < all;) {
    const int64_t predicted = std::min(all - done, done == 0 ? longest : longest - r.context + 1);
    const int64_t end = done + predicted;
    LogLikelihoodRequest window{.context = {}, .continuation = {}, .subject = r.subject};
    // What is read ends before the last prediction, and begins L tokens earlier or with `first`.
    const int64_t begin = end - 1 - longest;
    if (begin < 0) window.context.push_back(r.first);
    const auto at = [&](int64_t i) { return r.tokens.begin() + static_cast<std::ptrdiff_t>(i); };
    window.context.insert(window.context.end(), at(std::max<int64_t>(begin, 0)), at(done));
    window.continuation.assign(at(done), at(end));
    windows.push_back(std::move(window));
    done = end;
  }
  return windows;
}

std::vector<RollingAnswer> rolling_log_likelihood(Lm& lm, std::span<const RollingRequest> requests) {
  std::vector<RollingAnswer> answers(requests.size());
  std::vector<LogLikelihoodRequest> windows;
  std::vector<size_t> request_of;
  for (size_t i = 0; i < requests.size(); ++i) {
    for (LogLikelihoodRequest& window : rolling_windows(requests[i], lm.context_length())) {
      windows.push_back(std::move(window));
      request_of.push_back(i);
    }
    answers[i].tokens = static_cast<int64_t>(requests[i].tokens.size());
  }
  const std::vector<LogLikelihoodAnswer> parts = lm.log_likelihood(windows);
  check_answer_count("log_likelihood", parts.size(), windows.size());
  for (size_t w = 0; w < windows.size(); ++w) {
    answers[request_of[w]].log_likelihood += parts[w].log_likelihood;
    ++answers[request_of[w]].windows;
  }
  return answers;
}

}  // namespace qlora
