// The law of prefix reuse: the same bits as without it.
#include <catch2/catch.hpp>

#include "eval/model_lm/test_lm.h"

using namespace qlora;
using test::Fixture;
using test::Requests;

namespace {

void check_same(Lm& a, Lm& b, const Requests& requests) {
  auto next_a = a.next_token(requests.next), next_b = b.next_token(requests.next);
  for (size_t i = 0; i < next_a.size(); ++i) {
    CHECK(next_a[i].logits == next_b[i].logits);
    CHECK(next_a[i].log_sum_exp == next_b[i].log_sum_exp);
  }
  auto ll_a = a.log_likelihood(requests.continuations), ll_b = b.log_likelihood(requests.continuations);
  for (size_t i = 0; i < ll_a.size(); ++i) {
    CHECK(ll_a[i].log_likelihood == ll_b[i].log_likelihood);
    CHECK(ll_a[i].greedy == ll_b[i].greedy);
  }
}

}  // namespace

TEST_CASE("answers have the same bits with and without prefix reuse on every backend in f32 and bf16") {
  const Requests requests(3, 24);
  for (const test::Variant& variant : test::runnable_variants()) {
    CAPTURE(variant);
    Fixture f(variant);
    auto plain = f.lm(false, 1);
    check_same(*f.lm(true), *plain, requests);
    // Whatever goes together, and however little is kept at a time.
    check_same(*f.lm(true, 1, 1), *plain, requests);
    check_same(*f.lm(true, 700, 300), *plain, requests);
  }
}

TEST_CASE("answers have the same bits with and without prefix reuse over an nf4 base on every backend") {
  const Requests requests(4, 12);
  for (const test::Variant& variant : test::runnable_variants()) {
    CAPTURE(variant);
    Fixture f(variant, {.max_positions = 1024}, {.format = Format::nf4, .double_quant = true});
    REQUIRE(f.model->bytes() < Fixture(variant).model->bytes());
    auto plain = f.lm(false, 1);
    check_same(*f.lm(true), *plain, requests);
    check_same(*f.lm(true, 700, 300), *plain, requests);
  }
}

TEST_CASE("answers have the same bits with prefix reuse under a sliding window of attention") {
  const Requests requests(11, 24);
  for (int64_t window : {20, 300}) {
    Fixture f({"auto"}, {.model_type = "mistral", .max_positions = 1024, .window = window});
    check_same(*f.lm(true), *f.lm(false, 1), requests);
  }
}

TEST_CASE("answers have the same bits with prefix reuse in families with LayerNorm") {
  const Requests requests(12, 16);
  for (test::TinyConfig config : test::tiny_layer_norm_models()) {
    CAPTURE(config.model_type);
    config.max_positions = 1024;
    Fixture f({"auto"}, config);
    check_same(*f.lm(true, 700, 300), *f.lm(false, 1), requests);
  }
}

TEST_CASE("answers have the same bits with prefix reuse where scores and logits have softcaps") {
  test::TinyConfig config = test::kTinyGemma2;
  config.max_positions = 1024;
  config.more += R"(, "layer_types": ["sliding_attention", "full_attention", "full_attention"])";
  Fixture f({"auto"}, config);
  check_same(*f.lm(true), *f.lm(false, 1), Requests(12, 24));
}

TEST_CASE("answers have the same bits with prefix reuse for many shapes of trees") {
  Fixture f({"auto"});
  for (uint64_t seed = 20; seed < 30; ++seed) {
    CAPTURE(seed);
    check_same(*f.lm(true, 900, 500), *f.lm(false), Requests(seed, 20));
  }
}

TEST_CASE("every answer is told once and as soon as its pass has ended") {
  Fixture f({"auto"});
  const Requests requests(5, 30);
  std::vector<int> told(requests.continuations.size(), 0);
  std::vector<LogLikelihoodAnswer> seen(told.size());
  int64_t last = -1;
  auto lm = make_model_lm(f.model, f.memory, {&f.first, &f.second},
                          {.max_batch_tokens = 300, .progress = [&](int64_t done, int64_t all) {
                             CHECK(done >= last);
                             CHECK(all == static_cast<int64_t>(told.size()));
                             CHECK(done == std::count(told.begin(), told.end(), 1));
                             last = done;
                           }});
  auto answers = lm->log_likelihood(requests.continuations, [&](size_t i, const LogLikelihoodAnswer& a) {
    ++told[i];
    seen[i] = a;
  });
  CHECK(last == static_cast<int64_t>(told.size()));
  for (size_t i = 0; i < told.size(); ++i) {
    CHECK(told[i] == 1);
    CHECK(seen[i].log_likelihood == answers[i].log_likelihood);
  }
}

TEST_CASE("several continuations of one context cost one context") {
  auto counter = make_counting_backend();
  Memory memory(*counter);
  auto model = test::load_tiny_model(memory, {.max_positions = 1024}, {.shapes_only = true});
  auto flops = [&](const std::vector<LogLikelihoodRequest>& requests) {
    counter->reset();
    make_model_lm(model, memory, {}, {})->log_likelihood(requests);
    return counter->work().flops;
  };
  const test::Ids context = test::random_examples(1, {400}, 61)[0];
  const double one = flops({{context, {1}}});
  CHECK(flops({{context, {1}}, {context, {2}}, {context, {3}}, {context, {4}}}) < 1.01 * one);
  CHECK(flops({{context, {1, 2, 3}}, {context, {2, 5}}, {context, {3, 1}}, {context, {4, 4, 4}}}) <
        1.1 * one);
}

TEST_CASE("a request that is longer than the context of the model is refused") {
  Fixture f({"auto"});
  std::vector<LogLikelihoodRequest> fits = {{test::Ids(1000, 3), test::Ids(25, 3)}};
  f.lm(true)->log_likelihood(fits);
  fits[0].continuation.push_back(3);
  CHECK_THROWS_WITH(f.lm(true)->log_likelihood(fits),
                    Catch::Contains("request 0 reads 1025 tokens, the model's context is 1024"));
}
