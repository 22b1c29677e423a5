#include "eval/generation/answers.h"

#include <catch2/catch.hpp>

#include "core/models/tiny_model.h"
#include "core/text/stop_strings.h"
#include "core/text/tiny_tokenizer.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

namespace {

// A tiny model that speaks in the tiny tokenizer's bytes.
struct Fixture {
  explicit Fixture(const std::string& name) : backend(make_backend(name)), memory(*backend) {
    write_tiny_tokenizer(folder.path());
    tokenizer = load_tokenizer(folder.path());
    model = load_tiny_model(memory, {.vocab = TinyTokenizer::kVocabSize});
    adapter = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .seed = 5});
  }
  std::unique_ptr<Lm> lm() { return make_model_lm(model, memory, {&adapter}, {.tokenizer = tokenizer}); }
  TemporaryFolder folder;
  std::unique_ptr<Backend> backend;
  Memory memory;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const Model> model;
  Adapter adapter;
};

// Two neighbouring ASCII characters from about the middle of what the model said: other bytes become U+FFFD,
// which shows only when the next token has come.
std::string plain_pair(const std::string& text) {
  auto plain = [&](size_t i) { return static_cast<unsigned char>(text[i]) < 0x80; };
  size_t i = text.size() / 2;
  while (i + 2 < text.size() && !(plain(i) && plain(i + 1))) ++i;
  return text.substr(i, 2);
}

}  // namespace

TEST_CASE("an answer ends with the token that completes a stop string") {
  Fixture f("auto");
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 6; ++i) {
    GenerateRequest& r = requests.emplace_back();
    r.context = {3, 1, static_cast<int32_t>(20 + i)};
    r.max_new_tokens = i < 3 ? 30 : 40;
    r.subject = i % 2 - 1;
    r.sampling = {.temperature = 5, .key = sampling_key(1, std::to_string(i))};
  }
  const auto free = f.lm()->generate(requests);
  int stopped = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].stop_strings = {"no such text", plain_pair(f.tokenizer->decode(free[i], true))};
  }
  const auto answers = f.lm()->generate(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<int32_t>& a = answers[i];
    REQUIRE(a.size() <= free[i].size());
    CHECK(std::equal(a.begin(), a.end(), free[i].begin()));
    const std::vector<std::string>& stops = requests[i].stop_strings;
    auto has_stop = [&](std::span<const int32_t> ids) {
      const std::string text = f.tokenizer->decode(ids, true);
      return cut_at_stop(text, stops).size() < text.size();
    };
    CHECK_FALSE(has_stop(std::span(a).first(a.size() - 1)));
    stopped += a.size() < free[i].size() ? 1 : 0;
    if (a.size() < free[i].size()) CHECK(has_stop(a));
    // Alone the answer is the same.
    CHECK(f.lm()->generate(std::span(&requests[i], 1))[0] == a);
  }
  CHECK(stopped >= 4);
}

TEST_CASE("stop strings without a tokenizer are refused") {
  Fixture f("auto");
  std::vector<GenerateRequest> requests(1);
  requests[0].context = {3};
  requests[0].stop_strings = {"x"};
  auto lm = make_model_lm(f.model, f.memory, {}, {});
  CHECK_THROWS_WITH(lm->generate(requests), Catch::Contains("no tokenizer"));
}
