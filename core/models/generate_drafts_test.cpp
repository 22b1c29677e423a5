// Drafts change no token: every answer is the one that steps of one token each yield.

#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/models/generate.h"
#include "core/models/tiny_model.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

namespace {

using Answers = std::vector<std::vector<int32_t>>;

// Rows of whole segments of 64 codes, so that SIMD backends have kernels of the decode class for them.
const TinyConfig kSegments = {
    .hidden = 64, .intermediate = 128, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16};

struct Counted {
  int64_t steps = 0, rows = 0, tokens = 0;
  int64_t most_rows = 0;
};

Answers generate_counted(const Model& model, Memory& memory, std::span<const Prompt> prompts,
                         GenerateOptions options, Counted& counted) {
  counted = {};
  options.on_step = [&](int64_t rows, int64_t tokens) {
    ++counted.steps;
    counted.rows += rows;
    counted.tokens += tokens;
    counted.most_rows = std::max(counted.most_rows, rows);
  };
  return generate(model, memory, DType::f32, prompts, options);
}

// A text that says the same three times, and a bit of it again.
std::vector<int32_t> repetitive(uint64_t seed, int64_t vocab, int64_t length = 9) {
  const std::vector<int32_t> once = random_examples(seed, {length}, vocab)[0];
  std::vector<int32_t> text;
  for (int i = 0; i < 3; ++i) text.insert(text.end(), once.begin(), once.end());
  text.insert(text.end(), once.begin(), once.begin() + 4);
  return text;
}

}  // namespace

TEST_CASE("answers with drafts are those without") {
  for (const Variant& variant : runnable_variants()) {
    auto backend = make_backend(variant.backend);
    Memory memory(*backend);
    auto model = load_tiny_model(
        memory, kSegments,
        {.quant = {.format = Format::nf4, .double_quant = true}, .operands = variant.operands});
    Adapter first = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .seed = 5});
    Adapter second = make_tiny_adapter(*model, memory, DType::f32, {.rank = 8, .seed = 6});
    Adapter* adapters[] = {&first, nullptr, &second};
    const Sampling how[] = {{},
                            {.repetition_penalty = 1.02},
                            {.temperature = 0.4, .top_p = 0.9, .repetition_penalty = 1.05, .key = 5},
                            {.temperature = 0.3, .top_k = 5, .key = 6}};
    std::vector<Prompt> prompts;
    for (size_t i = 0; i < 7; ++i)
      prompts.push_back({repetitive(30 + i, kSegments.vocab), adapters[i % 3], how[i % 4]});
    for (Numerics numerics : {Numerics::exact, Numerics::decode}) {
      INFO(variant << (numerics == Numerics::exact ? " exact" : " decode"));
      GenerateOptions options{.max_new_tokens = 30, .numerics = numerics, .drafts = 0};
      Counted plain, counted;
      const Answers expected = generate_counted(*model, memory, prompts, options, plain);
      CHECK(plain.rows == plain.tokens);
      // Stops that lie within what is drafted.
      GenerateOptions stopped = options;
      stopped.stop_ids = {expected[0][17], expected[3][11]};
      const Answers expected_stopped = generate_counted(*model, memory, prompts, stopped, plain);
      for (int64_t drafts : {-1, 1, 8}) {
        options.drafts = stopped.drafts = drafts;
        options.batch = stopped.batch = drafts == 1 ? 2 : 0;
        CHECK(generate_counted(*model, memory, prompts, options, counted) == expected);
        CHECK(counted.tokens == 7 * 29);  // but the first of each
        CHECK(counted.most_rows <= 16);
        if (drafts > 0) CHECK(counted.rows > counted.tokens);  // some were refused
        CHECK(generate_counted(*model, memory, prompts, stopped, counted) == expected_stopped);
      }
      int64_t steps = 0;
      for (size_t i = 0; i < prompts.size(); ++i) {
        CHECK(generate_counted(*model, memory, std::span(&prompts[i], 1), options, counted)[0] ==
              expected[i]);
        steps += counted.steps;
      }
      CHECK(steps < 6 * 29);  // some were taken
    }
  }
}

TEST_CASE("an answer ends in the middle of a draft where it ends without") {
  for (const std::string& name : runnable_backends()) {
    INFO(name);
    auto backend = make_backend(name);
    Memory memory(*backend);
    TinyConfig config = kSegments;
    config.max_positions = 50;
    auto model = load_tiny_model(memory, config, {.quant = {.format = Format::nf4}});
    const std::vector<Prompt> prompts = {{repetitive(3, config.vocab)}, {repetitive(4, config.vocab)}};
    for (int64_t length = 1; length <= 19; ++length) {  // there are 50 - 31 positions
      GenerateOptions options{.max_new_tokens = length == 19 ? 100 : length, .drafts = 0};
      const Answers expected = generate(*model, memory, DType::f32, prompts, options);
      CHECK(static_cast<int64_t>(expected[0].size()) == length);
      options.drafts = 15;
      CHECK(generate(*model, memory, DType::f32, prompts, options) == expected);
      // Told to end at that token, which is the last that is told.
      options.max_new_tokens = 100;
      Answers told(2);
      options.on_token = [&](size_t prompt, int32_t token) {
        told[prompt].push_back(token);
        return static_cast<int64_t>(told[prompt].size()) < length;
      };
      CHECK(generate(*model, memory, DType::f32, prompts, options) == expected);
      CHECK(told == expected);
    }
  }
}

TEST_CASE("what a conversation keeps are tokens that were taken") {
  for (Numerics numerics : {Numerics::exact, Numerics::decode})
    for (const std::string& name : runnable_backends()) {
      INFO(name << (numerics == Numerics::exact ? " exact" : " decode"));
      auto backend = make_backend(name);
      Memory memory(*backend);
      auto model = load_tiny_model(memory, kSegments, {.quant = {.format = Format::nf4}});
      Prompt prompt{repetitive(3, kSegments.vocab)};
      ReadTokens kept;
      GenerateOptions options{.numerics = numerics, .drafts = 8};
      int64_t read = 0;
      for (int64_t length : {5, 7, 12}) {  // turns of a conversation
        options.max_new_tokens = length;
        options.kept = &kept;
        options.on_prompts = [&](int64_t, int64_t some) { read = some; };
        const auto all = static_cast<int64_t>(prompt.tokens.size());
        const std::vector<int32_t> answer =
            generate(*model, memory, DType::f32, std::span(&prompt, 1), options)[0];
        if (length > 5) CHECK(read < all);
        if (length == 7) CHECK(read == (numerics == Numerics::exact ? 1 : 5));
        CHECK(kept.cache->length(0) ==
              static_cast<int64_t>(kept.tokens.size()) + (numerics == Numerics::exact ? 0 : length - 1));
        const GenerateOptions plain{.max_new_tokens = length, .numerics = numerics, .drafts = 0};
        CHECK(generate(*model, memory, DType::f32, std::span(&prompt, 1), plain)[0] == answer);
        prompt.tokens.insert(prompt.tokens.end(), answer.begin(), answer.end());
      }
    }
}

TEST_CASE("drafts change no answer of a model of any family or with many keys") {
  std::vector<TinyConfig> configs = {
      kSegments, {.model_type = "mistral", .window = 5}, kTinyGemma2, kTinyPhi3};
  for (const TinyConfig& config : tiny_layer_norm_models()) configs.push_back(config);
  auto backend = make_backend("auto");
  Memory memory(*backend);
  for (TinyConfig& config : configs) {
    INFO(config.model_type);
    config.max_positions = 400;
    auto model = load_tiny_model(memory, config, {.quant = {.format = Format::nf4}});
    // The second answer goes past 256 keys.
    const std::vector<Prompt> prompts = {{repetitive(3, config.vocab)}, {repetitive(4, config.vocab, 80)}};
    GenerateOptions options{.max_new_tokens = 60, .drafts = 0};
    Counted counted;
    const Answers expected = generate_counted(*model, memory, prompts, options, counted);
    const int64_t steps = counted.steps;
    options.drafts = 5;
    CHECK(generate_counted(*model, memory, prompts, options, counted) == expected);
    CHECK(counted.steps < steps);
  }
}

TEST_CASE("planned memory has room for the logits of every draft") {
  TinyConfig config = kSegments;
  config.vocab = 4'000;
  config.layers = 1;
  for (Numerics numerics : {Numerics::exact, Numerics::decode}) {
    INFO((numerics == Numerics::exact ? "exact" : "decode"));
    const auto peak = [&](std::unique_ptr<Backend> backend, bool planned, int64_t drafts, Counted& counted) {
      Memory memory(*backend);
      const auto model =
          load_tiny_model(memory, config, {.quant = {.format = Format::nf4}, .shapes_only = planned});
      const Prompt prompt{planned ? std::vector<int32_t>(10)
                                  : std::vector<int32_t>{7, 8, 7, 8, 7, 8, 7, 8, 7, 8}};
      memory.reset_peak();
      generate_counted(*model, memory, std::span(&prompt, 1),
                       {.max_new_tokens = 120, .numerics = numerics, .drafts = drafts}, counted);
      return memory.peak();
    };
    Counted counted;
    const size_t planned = peak(make_counting_backend(), true, 15, counted);
    CHECK(counted.most_rows == 16);
    for (int64_t drafts : {15, -1}) {
      CHECK(peak(make_backend("reference"), false, drafts, counted) <= planned);
      if (drafts == 15) CHECK(counted.most_rows == 16);
    }
  }
}

TEST_CASE("a device makes no drafts and numbers below -1 are refused") {
  auto backend = make_backend("cuda-emulated");
  Memory memory(*backend);
  auto model = load_tiny_model(memory, {.layers = 1});
  const std::vector<Prompt> prompts = {{{3, 4, 3, 4, 3, 4}}};
  Counted counted;
  generate_counted(*model, memory, prompts, {.max_new_tokens = 4, .drafts = 8}, counted);
  CHECK(counted.rows == 3);
  CHECK(counted.steps == 3);
  CHECK_THROWS_AS(generate(*model, memory, DType::f32, prompts, {.drafts = -2}), Error);
}
