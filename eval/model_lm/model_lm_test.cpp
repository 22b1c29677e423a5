#include <catch2/catch.hpp>

#include <cmath>

#include "core/models/tiny_model.h"
#include "eval/lm.h"
#include "kernels/test_backends.h"

using namespace qlora;

namespace {

// One tiny model with two adapters, on one backend.
struct Fixture {
  explicit Fixture(const std::string& backend_name) : backend(make_backend(backend_name)), memory(*backend) {
    model = test::load_tiny_model(memory);
    first = test::make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .dropout = 0.1f, .seed = 5});
    second = test::make_tiny_adapter(*model, memory, DType::f32, {.rank = 8, .seed = 6, .only = "q_proj"});
  }
  std::unique_ptr<Lm> lm(int64_t max_batch_tokens) {
    return make_model_lm(model, memory, {&first, &second}, {.max_batch_tokens = max_batch_tokens});
  }
  std::unique_ptr<Backend> backend;
  Memory memory;
  std::shared_ptr<const Model> model;
  Adapter first, second;
};

std::vector<NextTokenRequest> next_token_requests() {
  std::vector<NextTokenRequest> requests;
  auto contexts = test::random_examples(3, {7, 1, 12, 5, 12, 3, 9}, 61);
  for (size_t i = 0; i < contexts.size(); ++i)
    requests.push_back({contexts[i], {4, 60, 0}, static_cast<SubjectIndex>(i % 3) - 1});
  return requests;
}

}  // namespace

TEST_CASE("answers of a model do not depend on what shares their batch") {
  for (const std::string& name : test::runnable_backends()) {
    CAPTURE(name);
    Fixture f(name);
    auto requests = next_token_requests();
    auto together = f.lm(4096)->next_token(requests);
    auto apart = f.lm(1)->next_token(requests);
    REQUIRE(together.size() == requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      CHECK(together[i].logits == apart[i].logits);
      CHECK(together[i].log_sum_exp == apart[i].log_sum_exp);
    }
    // The subject matters: the same context under another adapter has other logits.
    NextTokenRequest other = requests[0];
    other.subject = 1;
    std::vector<NextTokenRequest> one = {other};
    CHECK(f.lm(64)->next_token(one)[0].logits != together[0].logits);
  }
}

TEST_CASE("a next token and the likelihood of what follows are one pass with the answers of two") {
  for (const std::string& name : test::runnable_backends()) {
    CAPTURE(name);
    Fixture f(name);
    auto lm = f.lm(64);
    const auto plain = next_token_requests();
    auto both = plain;
    std::vector<LogLikelihoodRequest> apart;
    for (size_t i = 0; i < both.size(); ++i) {
      both[i].continuation = {60, static_cast<int32_t>(i)};
      apart.push_back({both[i].context, both[i].continuation, both[i].subject});
    }
    const auto expected = lm->next_token(plain), answers = lm->next_token(both);
    const auto likelihoods = lm->log_likelihood(apart);
    for (size_t i = 0; i < both.size(); ++i) {
      CHECK(answers[i].logits == expected[i].logits);
      CHECK(answers[i].log_sum_exp == Approx(expected[i].log_sum_exp));
      CHECK_FALSE(expected[i].log_likelihood);
      CHECK(answers[i].log_likelihood == likelihoods[i].log_likelihood);
    }
  }
}

TEST_CASE("a log-likelihood is the sum of its tokens and its probabilities sum to one") {
  for (const std::string& name : test::runnable_backends()) {
    CAPTURE(name);
    Fixture f(name);
    std::vector<int32_t> context = {3, 1, 4};
    double mass = 0;
    std::vector<LogLikelihoodRequest> all;
    for (int32_t t = 0; t < 61; ++t) all.push_back({context, {t}, 0});
    all.push_back({context, {7, 9, 2}, 0});
    auto answers = f.lm(100)->log_likelihood(all);
    int greedy = 0;
    for (int32_t t = 0; t < 61; ++t) {
      mass += std::exp(answers[static_cast<size_t>(t)].log_likelihood);
      greedy += answers[static_cast<size_t>(t)].greedy ? 1 : 0;
    }
    CHECK(mass == Approx(1).epsilon(1e-5));
    CHECK(greedy == 1);
    std::vector<LogLikelihoodRequest> steps = {
        {{3, 1, 4}, {7}, 0}, {{3, 1, 4, 7}, {9}, 0}, {{3, 1, 4, 7, 9}, {2}, 0}};
    double sum = 0;
    for (const auto& a : f.lm(1)->log_likelihood(steps)) sum += a.log_likelihood;
    CHECK(answers.back().log_likelihood == Approx(sum).epsilon(1e-6));
  }
}

TEST_CASE("a generated answer is greedy under its own adapter") {
  Fixture f("auto");
  std::vector<GenerateRequest> requests;
  for (SubjectIndex s : {-1, 0, 1, 0}) requests.push_back({{2, 7, 1}, 6, {}, s});
  requests.back().context = {5, 5, 5, 5};
  auto answers = f.lm(64)->generate(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    REQUIRE(answers[i].size() == 6);
    std::vector<LogLikelihoodRequest> check = {{requests[i].context, answers[i], requests[i].subject}};
    CHECK(f.lm(64)->log_likelihood(check)[0].greedy);
  }
}

TEST_CASE("a token outside the vocabulary is refused by name") {
  Fixture f("auto");
  std::vector<NextTokenRequest> bad = {{{1, 61}, {0}, -1}};
  CHECK_THROWS_WITH(f.lm(64)->next_token(bad),
                    Catch::Contains("token 61 is outside the model's vocabulary of 61"));
}
