#include "core/models/sampling.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "core/base/error.h"
#include "core/base/philox.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

namespace {

// The next token, on one backend.
class Drawer {
 public:
  explicit Drawer(const std::string& backend = "reference")
      : backend_(make_backend(backend)), memory_(*backend_) {}
  int32_t operator()(Sampler& sampler, const std::vector<float>& logits) {
    const Tensor row =
        Tensor::from_floats(memory_, {1, static_cast<int64_t>(logits.size())}, DType::f32, logits);
    Sampler* const samplers[] = {&sampler};
    return next_tokens(row, samplers).at(0);
  }
  int32_t operator()(Sampler&& sampler, const std::vector<float>& logits) { return (*this)(sampler, logits); }

 private:
  std::unique_ptr<Backend> backend_;
  Memory memory_;
};

// How often each token is the first of an answer, over `n` questions.
std::map<int32_t, int> first_tokens(const std::vector<float>& logits, Sampling sampling, int n) {
  std::map<int32_t, int> counts;
  Drawer draw;
  for (int i = 0; i < n; ++i) {
    sampling.key = sampling_key(7, std::to_string(i));
    ++counts[draw(Sampler(sampling, {}), logits)];
  }
  return counts;
}

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 3));
  return logits;
}

std::vector<int32_t> tokens_of(const std::map<int32_t, int>& counts) {
  std::vector<int32_t> tokens;
  for (const auto& [token, n] : counts) tokens.push_back(token);
  return tokens;
}

}  // namespace

TEST_CASE("tokens are drawn as often as the tempered softmax says") {
  const std::vector<float> logits = logs({0.1, 0.4, 0.2, 0.3});
  for (double temperature : {1.0, 0.5}) {
    std::vector<double> expected;
    for (float x : logits) expected.push_back(std::exp(static_cast<double>(x) / temperature));
    double sum = 0;
    for (double e : expected) sum += e;
    constexpr int kDraws = 20'000;
    auto counts = first_tokens(logits, {.temperature = temperature}, kDraws);
    double chi_square = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double mean = kDraws * expected[i] / sum, off = counts[static_cast<int32_t>(i)] - mean;
      chi_square += off * off / mean;
    }
    CHECK(chi_square < 16.3);  // 3 degrees of freedom: exceeded once in a thousand
  }
}

TEST_CASE("the nucleus is the smallest set of likeliest tokens that reaches top_p") {
  const std::vector<float> logits = logs({0.05, 0.45, 0.25, 0.15, 0.1});
  auto kept = [&](Sampling s) { return tokens_of(first_tokens(logits, s, 3000)); };
  CHECK(kept({.temperature = 1, .top_p = 0.4}) == std::vector<int32_t>{1});
  CHECK(kept({.temperature = 1, .top_p = 0.5}) == std::vector<int32_t>{1, 2});
  CHECK(kept({.temperature = 1, .top_p = 0.8}) == std::vector<int32_t>{1, 2, 3});
  CHECK(kept({.temperature = 1, .top_p = 0.96}) == std::vector<int32_t>{0, 1, 2, 3, 4});
  CHECK(kept({.temperature = 1, .top_k = 2}) == std::vector<int32_t>{1, 2});
  // The nucleus is measured after top-k: 0.45 of 0.7 is not yet 0.65, 0.45 of 1 is below it too.
  CHECK(kept({.temperature = 1, .top_p = 0.6, .top_k = 2}) == std::vector<int32_t>{1});
  CHECK(kept({.temperature = 1, .top_p = 0.6}) == std::vector<int32_t>{1, 2});
  // The temperature comes first: at 0.25 the likeliest token alone has 0.9.
  CHECK(kept({.temperature = 0.25, .top_p = 0.6}) == std::vector<int32_t>{1});
  // Equal logits at the border of top-k stay, as in transformers.
  const std::vector<float> equal = {1, 2, 2, 2, 0};
  CHECK(tokens_of(first_tokens(equal, {.temperature = 1, .top_k = 2}, 500)) == std::vector<int32_t>{1, 2, 3});
}

TEST_CASE("a nucleus of many tokens is that of a full sort") {
  std::vector<float> logits;
  PhiloxStream random(11);
  for (int i = 0; i < 5000; ++i) logits.push_back(4 * random.uniform());
  std::vector<int32_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  double all = 0;
  for (float x : logits) all += std::exp(static_cast<double>(x));
  size_t size = 0;
  for (double sum = 0; sum < 0.3 * all; ++size)
    sum += std::exp(static_cast<double>(logits[static_cast<size_t>(order[size])]));
  REQUIRE(size > 256);
  std::vector<int32_t> nucleus(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(size));
  std::sort(nucleus.begin(), nucleus.end());
  auto drawn = tokens_of(first_tokens(logits, {.temperature = 1, .top_p = 0.3}, 3000));
  CHECK(drawn.size() > size / 2);
  CHECK(std::includes(nucleus.begin(), nucleus.end(), drawn.begin(), drawn.end()));
}

TEST_CASE("the repetition penalty divides logits above zero and multiplies those below once a token") {
  const std::vector<float> logits = {2.0f, 1.5f, 1.2f, -1.0f};
  const std::vector<int32_t> prompt = {0, 0, 3};
  for (const std::string& name : runnable_backends(EmulatedGpu::included)) {
    INFO(name);
    Drawer draw(name);
    Sampler sampler({.repetition_penalty = 1.5}, prompt);
    // 2 / 1.5 = 1.333: then 1 is penalized to 1, then 2 to 0.8; the prompt's 0 counts once.
    CHECK(draw(sampler, logits) == 1);
    CHECK(draw(sampler, logits) == 0);
    CHECK(draw(sampler, {-1.0f, -1.2f, -1.2f, -1.0f}) == 2);
    CHECK(draw(sampler, {-1.0f, -1.2f, -1.3f, -0.9f}) == 3);
    Sampler plain({}, prompt);
    CHECK(draw(plain, logits) == 0);
    CHECK(draw(plain, logits) == 0);
  }
}

TEST_CASE("draws depend on seed and question and place alone") {
  const std::vector<float> logits(50, 0.0f);
  Drawer draw;
  auto answer = [&](uint64_t seed, const std::string& question) {
    Sampler sampler({.temperature = 1, .key = sampling_key(seed, question)}, {});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(draw(sampler, logits));
    return tokens;
  };
  CHECK(answer(1, "7") == answer(1, "7"));
  CHECK(answer(1, "7") != answer(2, "7"));
  CHECK(answer(1, "7") != answer(1, "8"));
  CHECK(answer(1, "7").front() != answer(1, "7").back());
}

TEST_CASE("greedy takes the first of equal logits and settings out of range are refused") {
  Drawer draw;
  CHECK(draw(Sampler({}, {}), {1, 3, 3}) == 1);
  const float infinite = std::numeric_limits<float>::infinity();
  for (double temperature : {0.0, 1.0})
    CHECK_THROWS_AS(draw(Sampler({.temperature = temperature}, {}), {1, infinite}), Error);
  CHECK_THROWS_WITH(check_sampling({.temperature = -1}), Catch::Contains("temperature -1"));
  CHECK_THROWS_WITH(check_sampling({.top_p = 0}), Catch::Contains("top_p"));
  CHECK_THROWS_WITH(check_sampling({.top_p = 1.5}), Catch::Contains("top_p"));
  CHECK_THROWS_WITH(check_sampling({.top_k = -1}), Catch::Contains("top_k"));
  CHECK_THROWS_WITH(check_sampling({.repetition_penalty = 0}), Catch::Contains("repetition_penalty"));
}
