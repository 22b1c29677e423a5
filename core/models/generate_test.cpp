#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/models/generate.h"
#include "core/models/tiny_model.h"
#include "core/models/weights.h"
#include "core/ops/kept_rows.h"
#include "core/ops/kv_cache.h"
#include "core/ops/ops.h"
#include "kernels/test_backends.h"
#include "kernels/timed.h"

using namespace qlora;
using namespace qlora::test;

namespace {

Tensor forward(const Model& model, Memory& memory, const Batch& batch, KvCache* cache) {
  Context c{.backend = memory.backend(), .memory = memory, .axis = &batch.axis, .cache = cache};
  Tensor hidden = model.hidden(c).value;
  if (cache != nullptr) cache->advance(batch.axis.cu);
  return hidden;
}

// Rows [lo, hi) of every example of a batch, at their positions.
Batch slice(const std::vector<TinyRun>& runs, size_t lo, size_t hi) {
  std::vector<TinyRun> cut = runs;
  for (TinyRun& run : cut) {
    for (auto& ids : run.examples) {
      size_t end = std::min(hi, ids.size()), begin = std::min(lo, end);
      ids = std::vector<int32_t>(ids.begin() + static_cast<int64_t>(begin),
                                 ids.begin() + static_cast<int64_t>(end));
    }
  }
  Batch batch = make_tiny_batch(cut);
  for (int32_t& p : batch.axis.positions) p += static_cast<int32_t>(lo);
  return batch;
}

}  // namespace

TEST_CASE("rows computed piece by piece over a cache have the bits of one forward pass") {
  for (const Variant& variant : runnable_variants(EmulatedGpu::included)) {
    std::vector<TinyConfig> configs = {{},
                                       {.model_type = "mistral", .window = 5},
                                       {.model_type = "qwen2"},
                                       {.model_type = "qwen3"},
                                       kTinyGemma2};
    for (const TinyConfig& config : tiny_layer_norm_models()) configs.push_back(config);
    configs.push_back(kTinyPhi3);
    if (variant.backend == "cuda-emulated")  // it takes seconds a model
      std::erase_if(configs, [&](const TinyConfig& c) { return !asks_anew(c, variant.operands); });
    for (const TinyConfig& config : configs) {
      INFO(variant << " " << config.model_type);
      auto backend = make_backend(variant.backend);
      Memory memory(*backend);
      auto model =
          load_tiny_model(memory, config, {.quant = {.format = Format::nf4}, .operands = variant.operands});
      Adapter adapter = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3});
      std::vector<TinyRun> runs = {{&adapter, 0, 0, 0, random_examples(4, {37, 1, 80}, config.vocab)},
                                   {nullptr, 0, 0, 0, random_examples(5, {20}, config.vocab)}};
      Batch whole = make_tiny_batch(runs);
      std::vector<float> expected = forward(*model, memory, whole, nullptr).to_floats();

      const HfConfig& c = model->config();
      KvCache cache(memory, c.layers, 4, 80, c.kv_heads * c.head_dim,
                    type_of_kept(*backend, DType::f32, variant.operands));
      std::vector<float> found(expected.size(), 0.0f);
      auto width = static_cast<size_t>(model->head().in());
      size_t lo = 0;
      for (size_t hi : {size_t{16}, size_t{17}, size_t{18}, size_t{40}, size_t{79}, size_t{80}}) {
        Batch part = slice(runs, lo, hi);
        std::vector<float> rows = forward(*model, memory, part, &cache).to_floats();
        for (size_t s = 0; s < 4; ++s) {
          auto from = static_cast<size_t>(part.axis.cu[s]), to = static_cast<size_t>(part.axis.cu[s + 1]);
          size_t at = static_cast<size_t>(whole.axis.cu[s]) + lo;
          std::copy(rows.begin() + static_cast<int64_t>(from * width),
                    rows.begin() + static_cast<int64_t>(to * width),
                    found.begin() + static_cast<int64_t>(at * width));
        }
        lo = hi;
      }
      CHECK(found == expected);
    }
  }
}

TEST_CASE("greedy answers do not depend on what shares the batch and follow the whole forward pass") {
  for (const Variant& variant : runnable_variants(EmulatedGpu::included)) {
    INFO(variant);
    auto backend = make_backend(variant.backend);
    Memory memory(*backend);
    TinyConfig config{.layers = 2};
    auto model = load_tiny_model(memory, config);
    Adapter first = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .seed = 5});
    Adapter second = make_tiny_adapter(*model, memory, DType::f32, {.rank = 5, .seed = 6});
    std::vector<std::vector<int32_t>> texts = random_examples(9, {5, 11, 1, 7}, config.vocab);
    std::vector<Prompt> prompts = {
        {texts[0], &first}, {texts[1], nullptr}, {texts[2], &second}, {texts[0], nullptr}};
    auto together = generate(*model, memory, DType::f32, prompts, {.max_new_tokens = 12});
    CHECK(together[0] != together[3]);
    for (size_t i = 0; i < prompts.size(); ++i) {
      auto alone = generate(*model, memory, DType::f32, std::span(&prompts[i], 1), {.max_new_tokens = 12});
      CHECK(alone[0] == together[i]);
      // Every token is the largest logit of a forward pass over all before it.
      std::vector<int32_t> ids = prompts[i].tokens;
      ids.insert(ids.end(), together[i].begin(), together[i].end());
      Batch batch = make_tiny_batch({{prompts[i].adapter, 0, 0, 0, {ids}}});
      Tensor hidden = forward(*model, memory, batch, nullptr);
      Context c{.backend = *backend, .memory = memory, .axis = &batch.axis};
      auto row = static_cast<int32_t>(prompts[i].tokens.size()) - 1;
      for (int32_t token : together[i]) {
        std::vector<float> logits = logits_of(c, model->output(), hidden, std::span(&row, 1)).to_floats();
        CHECK(std::max_element(logits.begin(), logits.end()) - logits.begin() == token);
        ++row;
      }
    }
  }
}

TEST_CASE("answers end at a stop token or when told to or where positions end") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  TinyConfig config{.max_positions = 20};
  auto model = load_tiny_model(memory, config);
  std::vector<Prompt> prompts = {{{3, 4, 5}, nullptr}, {{8}, nullptr}};
  auto free = generate(*model, memory, DType::f32, prompts, {.max_new_tokens = 100});
  CHECK(free[0].size() == 17);
  CHECK(free[1].size() == 19);

  int32_t stop = free[0][4];
  auto first = std::find(free[0].begin(), free[0].end(), stop) - free[0].begin();
  auto stopped = generate(*model, memory, DType::f32, prompts, {.max_new_tokens = 100, .stop_ids = {stop}});
  CHECK(stopped[0] == std::vector<int32_t>(free[0].begin(), free[0].begin() + first + 1));

  size_t seen = 0;
  GenerateOptions options{.max_new_tokens = 6, .on_token = [&](size_t prompt, int32_t) {
                            ++seen;
                            return prompt == 1;
                          }};
  auto told = generate(*model, memory, DType::f32, prompts, options);
  CHECK(told[0].size() == 1);
  CHECK(told[1].size() == 6);
  CHECK(seen == 7);
}

TEST_CASE("tokens are drawn on a device and nothing else of a step leaves it") {
  TimedBackend backend(make_backend("cuda-emulated"));
  Memory memory(backend);
  TinyConfig config;
  auto model = load_tiny_model(memory, config, {.quant = {.format = Format::nf4}});
  auto texts = random_examples(9, {5, 7}, config.vocab);
  const Sampling drawn{.temperature = 3, .top_p = 0.9, .repetition_penalty = 1.3, .key = 5};
  const std::vector<Prompt> prompts = {{.tokens = texts[0], .sampling = drawn}, {.tokens = texts[1]}};
  GenerateOptions options{.max_new_tokens = 5};
  backend.reset();
  const auto answers = generate(*model, memory, DType::f32, prompts, options);
  CHECK(backend.times().at("sample").calls == 5);
  CHECK(backend.times().at("copy to host").bytes == 2.0 * 5 * 2 * sizeof(int32_t));  // read and written
  options.batch = 1;
  CHECK(generate(*model, memory, DType::f32, prompts, options) == answers);
}

TEST_CASE("sampled answers do not depend on the batch or the order or what shares the cache") {
  for (const Variant& variant : runnable_variants()) {
    INFO(variant);
    auto backend = make_backend(variant.backend);
    Memory memory(*backend);
    TinyConfig config{.max_positions = 40};
    auto model =
        load_tiny_model(memory, config, {.quant = {.format = Format::nf4}, .operands = variant.operands});
    Adapter first = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .dropout = 0.1f, .seed = 5});
    Adapter second = make_tiny_adapter(*model, memory, DType::f32, {.rank = 5, .seed = 6});
    Adapter* adapters[] = {&first, nullptr, &second};
    auto texts = random_examples(9, {5, 11, 1, 40, 20, 7, 36, 2, 3}, config.vocab);
    std::vector<Prompt> prompts;
    for (size_t i = 0; i < texts.size(); ++i)
      prompts.push_back({texts[i],
                         adapters[i % 3],
                         {.temperature = 0.7,
                          .top_p = 0.9,
                          .repetition_penalty = i % 2 == 0 ? 1.0 : 1.3,
                          .key = sampling_key(4, std::to_string(i))}});
    GenerateOptions options{.max_new_tokens = 12, .stop_ids = {17}};
    std::vector<std::vector<int32_t>> alone;
    for (const Prompt& prompt : prompts)
      alone.push_back(generate(*model, memory, DType::f32, std::span(&prompt, 1), options)[0]);
    CHECK(alone[3].empty());  // no positions are left
    CHECK(alone[6].size() <= 4);
    CHECK(alone[0] != alone[8]);
    for (int64_t batch : {0, 1, 2, 4}) {
      options.batch = batch;
      std::vector<size_t> ended;
      options.on_answer = [&](size_t i, const std::vector<int32_t>& answer) {
        ended.push_back(i);
        CHECK(answer == alone[i]);
      };
      CHECK(generate(*model, memory, DType::f32, prompts, options) == alone);
      std::sort(ended.begin(), ended.end());
      CHECK(ended == std::vector<size_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
    }
    options.on_answer = {};
    std::reverse(prompts.begin(), prompts.end());
    std::reverse(alone.begin(), alone.end());
    options.batch = 3;
    CHECK(generate(*model, memory, DType::f32, prompts, options) == alone);
  }
}

TEST_CASE("prompts that begin alike are read once and answered alike") {
  for (const Variant& variant : runnable_variants()) {
    INFO(variant);
    auto backend = make_backend(variant.backend);
    Memory memory(*backend);
    const TinyConfig config{.layers = 2, .max_positions = 400};
    auto model =
        load_tiny_model(memory, config, {.quant = {.format = Format::nf4}, .operands = variant.operands});
    Adapter first = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .seed = 5});
    Adapter* adapters[] = {&first, nullptr};
    // Heads that end within and behind a tile of keys; a prompt that another one goes on from; one twice.
    const auto heads = random_examples(2, {90, 300}, config.vocab);
    const auto tails = random_examples(3, {4, 9, 1, 30, 9, 17}, config.vocab);
    std::vector<Prompt> prompts;
    for (size_t i = 0; i < 12; ++i) {
      std::vector<int32_t> tokens = heads[i % 4 / 2];
      tokens.insert(tokens.end(), tails[i / 2].begin(), tails[i / 2].end());
      if (i == 6) tokens = prompts[2].tokens;
      prompts.push_back({tokens, adapters[i % 2]});
    }
    prompts.push_back({prompts[0].tokens, prompts[0].adapter, {.temperature = 0.8, .key = 7}});
    GenerateOptions options{.max_new_tokens = 5, .reuse_prefixes = false};
    int64_t tokens = 0, read = 0;
    options.on_prompts = [&](int64_t all, int64_t some) {
      tokens += all;
      read += some;
    };
    const auto expected = generate(*model, memory, DType::f32, prompts, options);
    CHECK(read == tokens);
    const int64_t whole = tokens;
    options.reuse_prefixes = true;
    for (int64_t batch : {0, 1, 3, 5}) {
      tokens = read = 0;
      options.batch = batch;
      CHECK(generate(*model, memory, DType::f32, prompts, options) == expected);
      CHECK(tokens == whole);
      // Each head once an adapter, where the cache can hold all of them.
      if (batch == 0 || batch == 5) CHECK(read < 2 * (90 + 300) + 300);
    }
  }
}

TEST_CASE("a prompt goes on from what the one before has left in the cache with the same answer") {
  for (const Variant& variant : runnable_variants())
    for (Numerics numerics : {Numerics::exact, Numerics::decode}) {
      INFO(variant << (numerics == Numerics::exact ? " exact" : " decode"));
      auto backend = make_backend(variant.backend);
      Memory memory(*backend);
      const TinyConfig config{.layers = 2, .max_positions = 400};
      auto model =
          load_tiny_model(memory, config, {.quant = {.format = Format::nf4}, .operands = variant.operands});
      Adapter adapter = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .seed = 5});
      const auto texts = random_examples(2, {270, 9}, config.vocab);
      ReadTokens kept;
      int64_t read = 0;
      auto answer = [&](const Prompt& prompt, bool keep) {
        GenerateOptions options{.max_new_tokens = 6, .numerics = numerics, .kept = keep ? &kept : nullptr};
        options.on_prompts = [&](int64_t, int64_t some) { read = some; };
        return generate(*model, memory, DType::f32, std::span(&prompt, 1), options)[0];
      };
      // Its own answer and more words; then what branches off in the middle; the same again; another adapter.
      Prompt prompt{texts[0], &adapter};
      const std::vector<int32_t> first = answer(prompt, true);
      CHECK(read == 270);
      prompt.tokens.insert(prompt.tokens.end(), first.begin(), first.end());
      prompt.tokens.insert(prompt.tokens.end(), texts[1].begin(), texts[1].end());
      CHECK(answer(prompt, true) == answer(prompt, false));
      answer(prompt, true);
      CHECK(read == 1);
      prompt.tokens.resize(260);
      prompt.tokens.insert(prompt.tokens.end(), texts[1].begin(), texts[1].end());
      const std::vector<int32_t> branch = answer(prompt, true);
      CHECK(read == 9);
      CHECK(branch == answer(prompt, false));
      prompt.adapter = nullptr;
      CHECK(answer(prompt, true) == answer(prompt, false));
      CHECK(read == 269);
      prompt.tokens.assign(400, 3);  // no positions are left: nothing is read, and all is kept
      CHECK(answer(prompt, true).empty());
      prompt.tokens = texts[1];
      std::vector<Prompt> two = {prompt, prompt};
      CHECK_THROWS_AS(generate(*model, memory, DType::f32, two, {.kept = &kept}), Error);
    }
}

TEST_CASE("prompts that cannot be continued are refused") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  auto model = load_tiny_model(memory, {.max_positions = 4});
  CHECK(generate(*model, memory, DType::f32, {}, {}).empty());
  std::vector<Prompt> empty = {{{}, nullptr}}, large = {{{1, 2, 3, 4, 5}, nullptr}},
                      unknown = {{{61}, nullptr}}, negative = {{{-1}, nullptr}},
                      hot = {{{1}, nullptr, {.temperature = -1}}};
  CHECK_THROWS_AS(generate(*model, memory, DType::f32, empty, {}), Error);
  CHECK_THROWS_AS(generate(*model, memory, DType::f32, large, {}), Error);
  CHECK_THROWS_AS(generate(*model, memory, DType::f32, unknown, {}), Error);
  CHECK_THROWS_AS(generate(*model, memory, DType::f32, negative, {}), Error);
  CHECK_THROWS_AS(generate(*model, memory, DType::f32, hot, {}), Error);
}

TEST_CASE("answers of the decode class do not depend on what shares the batch") {
  for (const std::string& name : runnable_backends()) {
    INFO(name);
    auto backend = make_backend(name);
    Memory memory(*backend);
    // Rows of whole segments of 64 codes, so that SIMD backends have kernels for them.
    TinyConfig config{
        .hidden = 64, .intermediate = 128, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16};
    auto model = load_tiny_model(memory, config, {.quant = {.format = Format::nf4, .double_quant = true}});
    Adapter first = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3, .seed = 5});
    Adapter second = make_tiny_adapter(*model, memory, DType::f32, {.rank = 8, .seed = 6});
    const GenerateOptions options{.max_new_tokens = 12, .numerics = Numerics::decode};
    Adapter* adapters[] = {&first, nullptr, &second};
    std::vector<Prompt> prompts;
    std::vector<std::vector<int32_t>> alone;
    for (size_t i = 0; i < 20; ++i) {
      auto text = random_examples(30 + i, {1 + static_cast<int64_t>(i * 7 % 11)}, config.vocab);
      prompts.push_back({text[0], adapters[i % 3]});
      alone.push_back(generate(*model, memory, DType::f32, std::span(&prompts[i], 1), options)[0]);
    }
    for (size_t batch : {2, 3, 5, 8, 9, 13, 20}) {
      auto together = generate(*model, memory, DType::f32, std::span(prompts).first(batch), options);
      for (size_t i = 0; i < batch; ++i) CHECK(together[i] == alone[i]);
    }
  }
}

TEST_CASE("steps of the decode class read the head that is kept from call to call and prompts never do") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  TinyConfig config{
      .hidden = 64, .intermediate = 128, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16};
  auto model = load_tiny_model(memory, config, {.quant = {.format = Format::nf4}});
  const std::vector<Prompt> prompts = {{{3, 4, 5}}};
  std::shared_ptr<const FrozenLinear> kept;
  GenerateOptions options{.max_new_tokens = 5, .step_head = &kept};
  const auto exact = generate(*model, memory, DType::f32, prompts, options)[0];
  CHECK(kept == nullptr);
  options.numerics = Numerics::decode;
  const auto answer = generate(*model, memory, DType::f32, prompts, options)[0];
  REQUIRE(kept != nullptr);
  const auto* made = kept.get();
  CHECK(generate(*model, memory, DType::f32, prompts, options)[0] == answer);
  CHECK(kept.get() == made);
  // A head of zeros says token 0 at every step; the first token is the prompt's.
  kept = dense_linear("lm_head", Tensor::zeros(memory, {config.vocab, config.hidden}, DType::f32),
                      Operands::as_stored);
  const std::vector<int32_t> expected = {exact[0], 0, 0, 0, 0};
  CHECK(generate(*model, memory, DType::f32, prompts, options)[0] == expected);
}

TEST_CASE("a row of hidden states in the decode class has the same bits alone and in a batch") {
  for (const std::string& name : runnable_backends()) {
    INFO(name);
    auto backend = make_backend(name);
    Memory memory(*backend);
    TinyConfig config{
        .hidden = 64, .intermediate = 128, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16};
    auto model = load_tiny_model(memory, config, {.quant = {.format = Format::nf4}});
    Adapter adapter = make_tiny_adapter(*model, memory, DType::f32, {.rank = 3});
    const auto texts = random_examples(4, std::vector<int64_t>(20, 1), config.vocab);
    auto hidden = [&](size_t lo, size_t hi) {
      std::vector<std::vector<int32_t>> some(texts.begin() + static_cast<int64_t>(lo),
                                             texts.begin() + static_cast<int64_t>(hi));
      Batch batch = make_tiny_batch({{&adapter, 0, 0, 0, some}});
      Context c{.backend = *backend, .memory = memory, .axis = &batch.axis, .numerics = Numerics::decode};
      return model->hidden(c).value.to_floats();
    };
    const std::vector<float> all = hidden(0, 20);
    std::vector<float> rows;
    for (size_t i = 0; i < 20; ++i) {
      const std::vector<float> row = hidden(i, i + 1);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    CHECK(rows == all);
  }
}
