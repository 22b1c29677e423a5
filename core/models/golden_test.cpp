// Every golden model of a registered family, against what transformers computed with it.

#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>

#include "core/models/generate.h"
#include "core/models/golden_models.h"
#include "core/models/tiny_model.h"
#include "core/ops/ops.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

namespace {

// The ragged sequences of inputs.json on one axis.
Batch read_batch(const Path& golden) {
  std::vector<std::vector<int32_t>> ids;
  std::vector<int32_t> targets;
  Json inputs = read_golden_json(golden / "inputs.json");
  for (const Json& s : inputs.at("sequences")) {
    ids.push_back(s.at("input_ids").get<std::vector<int32_t>>());
    auto labels = s.at("labels").get<std::vector<int32_t>>();
    targets.insert(targets.end(), labels.begin() + 1, labels.end());  // a row predicts the next token
    targets.push_back(-100);
  }
  Batch batch = make_tiny_batch({{nullptr, 0, 0, 0, ids}});
  batch.targets = targets;
  return batch;
}

std::vector<double> doubles(const TensorView& t) {
  std::vector<double> v(static_cast<size_t>(t.size()));
  std::memcpy(v.data(), t.bytes.data(), t.bytes.size());
  return v;
}

std::vector<double> slice(const std::vector<double>& rows, const Batch& batch, size_t sequence,
                          int64_t width) {
  int64_t lo = batch.axis.cu[sequence] * width, hi = batch.axis.cu[sequence + 1] * width;
  return {rows.begin() + lo, rows.begin() + hi};
}

// A golden model loaded from one of its configs, and its forward pass.
struct Loaded {
  std::unique_ptr<Backend> backend;
  Memory memory{*backend};
  std::shared_ptr<const Model> model;
  Batch batch;
  std::vector<Tensor> trace;
  Tensor hidden;
  std::vector<double> logits, losses;

  Loaded(const Path& golden, const std::string& config, const std::string& on, DType type)
      : backend(make_backend(on)), batch(read_batch(golden)) {
    GoldenFolder folder(golden, config);
    model = load_model(folder.path(), memory, {.type = type});
    Context c{.backend = *backend, .memory = memory, .axis = &batch.axis, .type = type};
    hidden = model->hidden(c, &trace).value;
    std::vector<int32_t> rows(static_cast<size_t>(batch.axis.rows()));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
    logits = logits_of(c, model->output(), hidden, rows).to_doubles();
    losses = lm_loss(c, model->output(), Var{hidden}, batch.targets);
  }
};

// Name of a hidden state in forward.safetensors and what we have for it (sequence 1).
std::vector<double> hidden_state(const Loaded& m, size_t k) {
  bool last =
      k + 1 == m.trace.size();  // transformers puts the final norm's output in the place of the last one
  const Tensor& state = last ? m.hidden : m.trace[k];
  return slice(state.to_doubles(), m.batch, 1, state.cols());
}

void check_losses(const Loaded& m, const Json& expected, double bound) {
  for (size_t s = 0; s < expected.at("sequences").size(); ++s) {
    double sum = 0;
    for (double l : slice(m.losses, m.batch, s, 1)) sum += l;
    const Json& e = expected.at("sequences")[s];
    CHECK(std::abs(sum - e.at("loss_sum").get<double>()) <=
          bound * std::max(1, e.at("label_tokens").get<int>()));
  }
}

}  // namespace

TEST_CASE("golden models give the logits and hidden states of transformers in f32", "[golden]") {
  if (missing(golden_models_path())) return;
  for (const Path& golden : golden_models()) {
    SafetensorsFile forward(golden / "forward.safetensors");
    Json expected = read_golden_json(golden / "expected.json");
    const double bound = f32_bound(expected);
    for (const std::string& backend : runnable_backends(EmulatedGpu::included)) {
      for (const std::string& config : golden_configs(golden)) {
        INFO(golden.filename().string() << " " << config << " on " << backend);
        Loaded m(golden, config, backend, DType::f32);
        for (size_t s = 0; s + 1 < m.batch.axis.cu.size(); ++s) {
          std::vector<double> mine = slice(m.logits, m.batch, s, m.model->config().vocab_size);
          CHECK(largest_difference(mine, to_floats(forward.at("logits_" + std::to_string(s)))) <= bound);
        }
        for (size_t k = 0; k < m.trace.size(); ++k) {
          INFO("hidden state " << k);
          CHECK(largest_difference(hidden_state(m, k),
                                   to_floats(forward.at("hidden_" + std::to_string(k)))) <= bound);
        }
        for (size_t k = 0; k + 1 < m.trace.size(); ++k) {
          std::vector<double> mine = slice(m.trace[k + 1].to_doubles(), m.batch, 1, m.trace[k + 1].cols());
          CHECK(largest_difference(mine, to_floats(forward.at("block_out_" + std::to_string(k)))) <= bound);
        }
        check_losses(m, expected, 1e-4);
      }
    }
  }
}

TEST_CASE("golden models give the logits and losses of transformers in f64", "[golden]") {
  if (missing(golden_models_path())) return;
  for (const Path& golden : golden_models()) {
    INFO(golden.filename().string());
    SafetensorsFile forward(golden / "forward.safetensors");
    Loaded m(golden, "config.json", "reference", DType::f64);
    std::vector<double> expected = doubles(forward.at("logits_1_f64"));
    double largest = 0;
    for (double v : expected) largest = std::max(largest, std::abs(v));
    std::vector<double> mine = slice(m.logits, m.batch, 1, m.model->config().vocab_size);
    CHECK(largest_difference(mine, expected) <= 1e-6 * largest);
    check_losses(m, read_golden_json(golden / "expected.json"), 1e-6);
  }
}

TEST_CASE("rope frequencies are those of transformers", "[golden]") {
  if (missing(golden_models_path())) return;
  for (const Path& golden : golden_models()) {
    SafetensorsFile forward(golden / "forward.safetensors");
    const TensorView* table = forward.find("rope_inv_freq");
    if (table == nullptr) continue;
    for (const std::string& config : golden_configs(golden)) {
      INFO(golden.filename().string() << " " << config);
      HfConfig c = read_hf_config(golden / config);
      CHECK(rope_inv_freq(c.rope, c.rotary_dim) == to_floats(*table));
    }
  }
}

TEST_CASE("golden models continue a prompt with the tokens of transformers", "[golden]") {
  if (missing(golden_models_path())) return;
  for (const Path& golden : golden_models()) {
    if (!std::filesystem::exists(golden / "greedy.json")) continue;
    Json greedy = read_golden_json(golden / "greedy.json");
    for (const std::string& name : runnable_backends()) {
      INFO(golden.filename().string() << " on " << name);
      auto backend = make_backend(name);
      Memory memory(*backend);
      auto model = load_model(golden, memory, {});
      Prompt prompt{greedy.at("prompt").get<std::vector<int32_t>>()};
      auto expected = greedy.at("tokens").get<std::vector<int32_t>>();
      GenerateOptions options{.max_new_tokens = static_cast<int64_t>(expected.size())};
      CHECK(generate(*model, memory, DType::f32, std::span(&prompt, 1), options)[0] == expected);
    }
  }
}

TEST_CASE("stories260K tells the stories that llama2.c tells", "[golden]") {
  Path folder = test_data() / "01_models/llama_stories260K_hf";
  if (missing(folder)) return;
  Json cases = read_golden_json(folder / "golden.json").at("cases");
  for (const std::string& name : runnable_backends()) {
    auto backend = make_backend(name);
    Memory memory(*backend);
    auto model = load_model(folder, memory, {});
    for (const Json& one : cases) {
      INFO(name << ": " << one.at("prompt").get<std::string>());
      auto ids = one.at("prompt_ids").get<std::vector<int32_t>>();
      auto expected = one.at("greedy_ids").get<std::vector<int32_t>>();  // with the prompt
      Prompt prompt{ids};
      GenerateOptions options{.max_new_tokens = static_cast<int64_t>(expected.size() - ids.size())};
      auto answers = generate(*model, memory, DType::f32, std::span(&prompt, 1), options);
      std::vector<int32_t> all = ids;
      all.insert(all.end(), answers[0].begin(), answers[0].end());
      CHECK(all == expected);

      Batch batch = make_tiny_batch({{nullptr, 0, 0, 0, {ids}}});
      Context c{.backend = *backend, .memory = memory, .axis = &batch.axis};
      Tensor hidden = model->hidden(c).value;
      auto last = static_cast<int32_t>(ids.size()) - 1;
      CHECK(largest_difference(logits_of(c, model->output(), hidden, std::span(&last, 1)).to_floats(),
                               one.at("logits_after_prompt").get<std::vector<double>>()) <= 1e-4);
      std::vector<int32_t> targets(ids.begin() + 1, ids.end());
      targets.push_back(-100);
      std::vector<double> losses = lm_loss(c, model->output(), Var{hidden}, targets);
      losses.pop_back();
      CHECK(largest_difference(losses, one.at("nll_of_prompt_tokens").get<std::vector<double>>()) <= 1e-4);
    }
  }
}
