#include <catch2/catch.hpp>

#include "core/models/tiny_model.h"
#include "eval/rolling.h"

using namespace qlora;

namespace {

std::vector<int32_t> numbers(int32_t n) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < n; ++i) tokens.push_back(i);
  return tokens;
}

using Ids = std::vector<int32_t>;

}  // namespace

TEST_CASE("windows of a rolling log-likelihood are those of the evaluation harness") {
  auto windows = rolling_windows({.tokens = numbers(10), .first = 100, .max_length = 4}, 2048);
  REQUIRE(windows.size() == 3);
  CHECK(windows[0].context == Ids{100});
  CHECK(windows[0].continuation == Ids{0, 1, 2, 3});
  CHECK(windows[1].context == Ids{3});
  CHECK(windows[1].continuation == Ids{4, 5, 6, 7});
  // The last window is as long as the others and predicts what is left.
  CHECK(windows[2].context == Ids{5, 6, 7});
  CHECK(windows[2].continuation == Ids{8, 9});
}

TEST_CASE("rolling windows with more context move on by the stride") {
  auto windows = rolling_windows({.tokens = numbers(8), .first = 9, .max_length = 4, .context = 3}, 2048);
  REQUIRE(windows.size() == 3);
  CHECK(windows[0].continuation == Ids{0, 1, 2, 3});
  CHECK(windows[1].context == Ids{1, 2, 3});
  CHECK(windows[1].continuation == Ids{4, 5});
  CHECK(windows[2].context == Ids{3, 4, 5});
  CHECK(windows[2].continuation == Ids{6, 7});
}

TEST_CASE("rolling windows predict every token once whatever the lengths") {
  for (int32_t n : {0, 1, 5, 16, 17, 40})
    for (int64_t length : {1, 2, 7, 16})
      for (int64_t context = 1; context <= length; context += 3) {
        Ids predicted;
        for (const LogLikelihoodRequest& w : rolling_windows(
                 {.tokens = numbers(n), .first = -1, .max_length = length, .context = context}, 2048)) {
          INFO(n << " tokens, windows of " << length << ", context " << context);
          CHECK(static_cast<int64_t>(w.context.size() + w.continuation.size()) <= length + 1);
          // What is read is one stretch of the text: its numbers follow each other.
          Ids read = w.context;
          read.insert(read.end(), w.continuation.begin(), w.continuation.end());
          for (size_t i = 1; i < read.size(); ++i) CHECK(read[i] == read[i - 1] + 1);
          predicted.insert(predicted.end(), w.continuation.begin(), w.continuation.end());
        }
        CHECK(predicted == numbers(n));
      }
  CHECK_THROWS_WITH(rolling_windows({.tokens = {1}, .max_length = 4, .context = 5}, 2048),
                    Catch::Contains("windows of 4 tokens cannot keep 5"));
}

TEST_CASE("a rolling log-likelihood is the sum over its windows for every subject") {
  auto backend = make_backend("auto");
  Memory memory(*backend);
  auto model = test::load_tiny_model(memory);
  Adapter adapter = test::make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .seed = 5});
  auto lm = make_model_lm(model, memory, {&adapter}, {});
  auto texts = test::random_examples(4, {300, 7, 256}, 61);
  std::vector<RollingRequest> requests;
  for (SubjectIndex subject : {-1, 0})
    for (const auto& text : texts) requests.push_back({.tokens = text, .first = 1, .subject = subject});
  requests.push_back({.tokens = {}, .first = 1});
  const std::vector<RollingAnswer> answers = rolling_log_likelihood(*lm, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    double sum = 0;
    auto windows = rolling_windows(requests[i], 256);
    for (const LogLikelihoodAnswer& a : lm->log_likelihood(windows)) sum += a.log_likelihood;
    CHECK(answers[i].log_likelihood == sum);
    CHECK(answers[i].tokens == static_cast<int64_t>(requests[i].tokens.size()));
    CHECK(answers[i].windows == static_cast<int64_t>(windows.size()));
  }
  CHECK(answers[0].windows == 2);
  CHECK(answers[0].log_likelihood != answers[3].log_likelihood);
  CHECK(answers.back().log_likelihood == 0);
}
