#include <malloc.h>

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <map>

#include "core/base/error.h"
#include "core/models/tiny_model.h"
#include "core/models/weights.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Matchers::Contains;

namespace {

// A backend, and the message with which a folder of these weights is refused.
struct Loader {
  std::unique_ptr<Backend> backend = make_backend("reference");
  Memory memory{*backend};
  TemporaryFolder folder;

  std::string refusal(const TinyConfig& config, const TinyWeights& weights) {
    write_file(folder.path() / "config.json", tiny_config_json(config));
    weights.write(folder.path() / "model.safetensors");
    try {
      load_model(folder.path(), memory, {});
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::data);
      return e.what();
    }
    return "";
  }
};

// A line "VmHWM:  123 kB" of this process' status.
size_t status_bytes(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(name)) return std::stoull(line.substr(name.size())) * 1024;
  throw std::runtime_error("/proc/self/status has no " + name);
}

void write_file_in_place(const char* path, const char* text) {
  std::ofstream file(path);
  file << text << std::flush;
  REQUIRE(file.good());
}

}  // namespace

TEST_CASE_METHOD(Loader, "weights that are missing or misshapen or unused are listed in one error") {
  TinyConfig config{.layers = 1};
  TinyWeights weights(1);
  weights.add("model.embed_tokens.weight", {config.vocab, config.hidden + 1}, 1);
  weights.add("model.norm.weight", {config.hidden}, 1);
  weights.add("model.layers.0.self_attn.q_norm.weight", {config.head_dim}, 1);
  std::string message = refusal(config, weights);
  CHECK_THAT(message, Contains("model.embed_tokens.weight is [61, 25], expected [61, 24]"));
  CHECK_THAT(message, Contains("missing (10)") && Contains("lm_head.weight"));
  CHECK_THAT(message, Contains("not used (1): model.layers.0.self_attn.q_norm.weight"));
}

TEST_CASE_METHOD(Loader, "weights of whole numbers are named with their type") {
  TinyConfig config{.layers = 1};
  TemporaryFolder plain;
  write_tiny_model(plain.path(), config);
  ModelFolder source(plain.path());
  std::vector<TensorOut> out;
  for (const std::string& name : source.names()) {
    const TensorView* t = source.find(name);
    const bool hit = name == "model.norm.weight";
    out.push_back({name, hit ? DType::i32 : t->type, t->shape, t->bytes});
  }
  write_file(folder.path() / "config.json", tiny_config_json(config));
  write_safetensors(folder.path() / "model.safetensors", out);
  CHECK_THROWS_WITH(load_model(folder.path(), memory, {}),
                    Contains("not f32, f64, bf16 or f16 (1): model.norm.weight is i32"));
}

TEST_CASE_METHOD(Loader, "checkpoints of a bare model lack the prefix and old ones hold masks") {
  const std::map<std::string, std::string> buffers = {{"gpt_neox", "layers.0.attention.bias"},
                                                      {"gpt2", "h.0.attn.bias"},
                                                      {"falcon", "h.1.self_attention.rotary_emb.inv_freq"}};
  for (const TinyConfig& config : tiny_layer_norm_models()) {
    INFO(config.model_type);
    TemporaryFolder plain, bare;
    write_tiny_model(plain.path(), config);
    const ModelFolder source(plain.path());
    const std::vector<float> mask(16, 1.0f);
    std::vector<TensorOut> out;
    for (const std::string& name : source.names()) {
      const TensorView* t = source.find(name);
      const bool whole = name == "embed_out.weight";
      out.push_back({whole ? name : name.substr(name.find('.') + 1), t->type, t->shape, t->bytes});
    }
    if (auto buffer = buffers.find(config.model_type); buffer != buffers.end())
      out.push_back({buffer->second, DType::f32, {4, 4}, std::as_bytes(std::span(mask))});
    write_file(bare.path() / "config.json", tiny_config_json(config));
    write_safetensors(bare.path() / "model.safetensors", out);
    const auto expected = load_model(plain.path(), memory, {}), found = load_model(bare.path(), memory, {});
    REQUIRE(found->linears().size() == expected->linears().size());
    for (const LinearInfo& linear : expected->linears()) {
      INFO(linear.name);
      REQUIRE(found->find(linear.name) != nullptr);
      CHECK(found->find(linear.name)->to_dense(memory, DType::f32).to_floats() ==
            expected->find(linear.name)->to_dense(memory, DType::f32).to_floats());
    }
  }
}

TEST_CASE_METHOD(Loader, "a matrix of several slices that is stored with inputs as rows is read transposed") {
  constexpr int64_t kIn = 1030, kOut = 2100;
  const std::vector<float> stored = random_floats(1, "m", kIn * kOut, 1);
  write_file(folder.path() / "config.json", tiny_config_json({}));
  const TensorOut matrix{"m.weight", DType::f32, {kIn, kOut}, std::as_bytes(std::span(stored))};
  write_safetensors(folder.path() / "model.safetensors", std::span(&matrix, 1));
  const ModelFolder source(folder.path());
  const LoadOptions options;
  const WeightLoader loader(source, memory, options);
  const std::vector<float> found =
      loader.linear("m", kOut, kIn, false, WeightOrder::in_out)->to_dense(memory, DType::f32).to_floats();
  int64_t wrong = 0;
  for (int64_t o = 0; o < kOut; ++o)
    for (int64_t i = 0; i < kIn; ++i)
      wrong += found[static_cast<size_t>(o * kIn + i)] != stored[static_cast<size_t>(i * kOut + o)];
  CHECK(wrong == 0);
}

TEST_CASE_METHOD(Loader, "rotary buffers of old checkpoints and the copy of a tied head are left aside") {
  TinyConfig config{.layers = 1, .tied = true};
  TemporaryFolder plain;
  write_tiny_model(plain.path(), config);
  ModelFolder source(plain.path());
  std::vector<TensorOut> out;
  for (const std::string& name : source.names()) {
    const TensorView* t = source.find(name);
    out.push_back({name, t->type, t->shape, t->bytes});
  }
  const TensorView* embedding = source.find("model.embed_tokens.weight");
  out.push_back({"lm_head.weight", embedding->type, embedding->shape, embedding->bytes});
  out.push_back(
      {"model.layers.0.self_attn.rotary_emb.inv_freq", DType::f32, {4}, embedding->bytes.first(16)});
  write_file(folder.path() / "config.json", tiny_config_json(config));
  write_safetensors(folder.path() / "model.safetensors", out);
  auto model = load_model(folder.path(), memory, {});
  CHECK(model->head().to_dense(memory, DType::f32).to_floats() ==
        to_floats(*source.find("model.embed_tokens.weight")));
}

TEST_CASE_METHOD(Loader, "a head that is no copy of the embedding to which config.json ties it is refused") {
  std::vector<TinyConfig> all = {{.layers = 1}, kTinyGemma2, kTinyPhi3};
  for (const TinyConfig& config : tiny_layer_norm_models()) all.push_back(config);
  for (TinyConfig& config : all) {
    INFO(config.model_type);
    config.tied = true;
    TemporaryFolder plain;
    write_tiny_model(plain.path(), config);
    const ModelFolder source(plain.path());
    std::vector<TensorOut> out;
    const TensorView* embedding = nullptr;
    for (const std::string& name : source.names()) {
      const TensorView* t = source.find(name);
      if (embedding == nullptr && t->shape.size() == 2 && t->shape[0] == config.vocab) embedding = t;
      out.push_back({name, t->type, t->shape, t->bytes});
    }
    REQUIRE(embedding != nullptr);
    std::vector<float> other = to_floats(*embedding);
    other.back() += 1;
    const std::string head = config.model_type == "gpt_neox" ? "embed_out.weight" : "lm_head.weight";
    const Shape narrow = {embedding->shape[0], embedding->shape[1] - 1};
    for (const Shape& shape : {embedding->shape, narrow}) {
      std::vector<TensorOut> with_head = out;
      const auto n = static_cast<size_t>(shape[0] * shape[1]);
      with_head.push_back({head, DType::f32, shape, std::as_bytes(std::span(other).first(n))});
      write_safetensors(plain.path() / "model.safetensors", with_head);
      CHECK_THROWS_WITH(load_model(plain.path(), memory, {}),
                        Contains(head + " is not the matrix") && Contains("tie_word_embeddings: false"));
      const auto shapes = load_weights(ModelFolder(plain.path()), plain.path() / "config.json", memory,
                                       {.shapes_only = true});
      CHECK(shapes->config().tied_head);
    }
  }
}

TEST_CASE_METHOD(Loader, "a tied head costs no memory of its own") {
  Memory tied_memory(*backend);
  auto tied = load_tiny_model(tied_memory, {.tied = true});
  auto apart = load_tiny_model(memory, {.tied = false});
  CHECK(memory.used() - tied_memory.used() == 61 * 24 * 4);
  CHECK(tied->bytes() == tied_memory.used());
  CHECK(apart->bytes() == memory.used());
}

TEST_CASE_METHOD(Loader, "NaN in a dense weight names it") {
  TinyConfig config{.layers = 1};
  write_tiny_model(folder.path(), config);
  ModelFolder source(folder.path());
  TemporaryFolder broken;
  std::vector<float> bad(static_cast<size_t>(config.hidden), std::nanf(""));
  std::vector<TensorOut> out;
  for (const std::string& name : source.names()) {
    const TensorView* t = source.find(name);
    bool hit = name == "model.norm.weight";
    out.push_back({name, t->type, t->shape, hit ? std::as_bytes(std::span(bad)) : t->bytes});
  }
  write_file(broken.path() / "config.json", tiny_config_json(config));
  write_safetensors(broken.path() / "model.safetensors", out);
  CHECK_THROWS_WITH(load_model(broken.path(), memory, {}), Contains("model.norm.weight"));
}

// A sanitizer's allocator keeps what is freed.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE_METHOD(Loader, "loading takes slices of the dense weights beside the quantized base") {
  const TinyConfig config{.vocab = 32768, .hidden = 256, .layers = 1, .tied = true};
  write_tiny_model(folder.path(), config);
  const LoadOptions options{
      .quant = {.format = Format::nf4, .double_quant = true}, .operands = Operands::bf16, .cache = true};
  const size_t beside = loading_bytes(ModelFolder(folder.path()), options.quant);
  ::malloc_trim(0);  // what other tests have freed would be taken without being counted
  write_file_in_place("/proc/self/clear_refs", "5");  // the peak begins anew
  const size_t before = status_bytes("VmHWM:");
  auto model = load_model(folder.path(), memory, options);
  const size_t taken = status_bytes("VmHWM:") - before;
  const size_t dense = std::filesystem::file_size(folder.path() / "model.safetensors");
  INFO("base " << model->bytes() << ", beside " << beside << ", dense file " << dense << ", taken " << taken);
  constexpr size_t kSlack = size_t{4} << 20;
  CHECK(taken <= model->bytes() + beside + kSlack);
  CHECK(model->bytes() + beside + kSlack < model->bytes() + dense);  // the file alone would be too much
  CHECK(taken > model->bytes() / 2);
}
#endif

TEST_CASE_METHOD(Loader, "a model names its linears and finds them") {
  auto model = load_tiny_model(memory, {.layers = 2}, {.quant = {.format = Format::nf4}});
  REQUIRE(model->linears().size() == 14);
  for (const LinearInfo& l : model->linears()) {
    const FrozenLinear* w = model->find(l.name);
    REQUIRE(w != nullptr);
    CHECK(w->out() == l.out);
    CHECK(w->in() == l.in);
    CHECK(w->plain()->view().format == Format::nf4);
  }
  CHECK(model->linears()[7].name == "model.layers.1.self_attn.q_proj");
  CHECK(model->find("model.layers.2.self_attn.q_proj") == nullptr);
  CHECK(model->head().plain()->view().format == Format::dense);
}

TEST_CASE_METHOD(Loader, "an unknown model type answers with what is known") {
  write_tiny_model(folder.path());
  write_file(folder.path() / "config.json", R"({"model_type": "mistrol"})");
  CHECK_THROWS_WITH(load_model(folder.path(), memory, {}), Contains("did you mean `mistral`"));
}
