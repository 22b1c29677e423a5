#include "core/lora/lora.h"

#include <catch2/catch.hpp>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "core/base/test_errors.h"
#include "core/io/safetensors.h"
#include "core/lora/peft_config.h"
#include "core/models/tiny_model.h"

using namespace qlora;
using namespace qlora::test;

namespace {

struct Lab {
  std::unique_ptr<Backend> backend = make_backend("reference");
  Memory memory{*backend};
  std::shared_ptr<const Model> model = load_tiny_model(memory);
  std::unique_ptr<Adapter> adapter(const LoraConfig& config, uint64_t seed = 1) {
    return make_adapter(*model, config, memory, DType::f32, seed);
  }
};

std::vector<std::string> names(const std::vector<LinearInfo>& linears) {
  std::vector<std::string> out;
  for (const LinearInfo& linear : linears) out.push_back(linear.name);
  return out;
}

// Changes one key of an adapter's configuration.
void set_key(const Path& folder, const std::string& key, const Json& value) {
  Json config = Json::parse(read_file(folder / "adapter_config.json"));
  config[key] = value;
  write_file(folder / "adapter_config.json", config.dump());
}

}  // namespace

TEST_CASE("Targets are matched at the end of a name and at a dot") {
  Lab lab;
  CHECK(match_targets(*lab.model, {"all-linear"}).size() == 14);
  CHECK(names(match_targets(*lab.model, {"v_proj", "mlp.down_proj"})) ==
        std::vector<std::string>{"model.layers.0.self_attn.v_proj", "model.layers.0.mlp.down_proj",
                                 "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.down_proj"});
  CHECK(names(match_targets(*lab.model, {"model.layers.1.mlp.up_proj"})) ==
        std::vector<std::string>{"model.layers.1.mlp.up_proj"});
  CHECK(message_of(ErrorKind::usage, [&] {
          match_targets(*lab.model, {"q_proj", "k_porj"});
        }) == "unknown LoRA target `k_porj`; did you mean `k_proj`?");
  // "roj" and "_proj" end names, but not at a dot.
  CHECK(message_of(ErrorKind::usage, [&] { match_targets(*lab.model, {"_proj"}); }) != "no error");
}

TEST_CASE("A fresh adapter is uniform in A and zero in B and depends on seed and name alone") {
  Lab lab;
  auto a = lab.adapter({.r = 16, .alpha = 32, .dropout = 0.1f});
  auto b = lab.adapter({.r = 16, .targets = {"q_proj"}});
  auto c = lab.adapter({.r = 16, .targets = {"q_proj"}}, 2);
  const std::string q = "model.layers.0.self_attn.q_proj";
  const Lora& lora = *a->find(q);
  CHECK(lora.rank() == 16);
  CHECK(lora.scale == 2);
  CHECK(lora.dropout == 0.1f);
  CHECK(lora.a.value.shape() == Shape{16, 24});
  CHECK(lora.b.value.shape() == Shape{32, 16});
  std::vector<float> values = lora.a.value.to_floats();
  const float bound = 1 / std::sqrt(24.0f);
  double sum = 0, squares = 0;
  for (float v : values) {
    CHECK(std::abs(v) <= bound);
    sum += v;
    squares += v * v;
  }
  const double n = static_cast<double>(values.size());
  CHECK(std::abs(sum / n) < 0.02);
  CHECK(squares / n == Approx(bound * bound / 3).epsilon(0.15));
  for (float v : lora.b.value.to_floats()) CHECK(v == 0);
  CHECK(b->find(q)->a.value.to_floats() == values);
  CHECK(c->find(q)->a.value.to_floats() != values);
  CHECK(a->find("model.layers.1.self_attn.q_proj")->a.value.to_floats() != values);
  CHECK(lab.adapter({.r = 16, .alpha = 32, .use_rslora = true})->find(q)->scale == 8);
  CHECK(message_of(ErrorKind::usage, [&] { lab.adapter({.r = 0}); }) == "lora_r must be at least 1, found 0");
}

TEST_CASE("An adapter that is written and read is the same and so is one written again") {
  Lab lab;
  for (LoraConfig config :
       {LoraConfig{.r = 3, .alpha = 7.5, .dropout = 0.05f},
        LoraConfig{.r = 5, .alpha = 16, .targets = {"v_proj", "q_proj"}, .use_rslora = true}}) {
    TemporaryFolder folder;
    auto adapter = lab.adapter(config);
    for (auto& [name, lora] : adapter->lora)
      lora.b.value.copy_from(Tensor::from_floats(lab.memory, lora.b.value.shape(), DType::f32,
                                                 random_floats(9, name, lora.b.value.size(), 1)));
    save_peft(folder.path() / "one", *adapter, config, "some/base");
    LoadedAdapter read = load_peft(folder.path() / "one", *lab.model, lab.memory, DType::f32);
    CHECK(read.config.r == config.r);
    CHECK(read.config.alpha == config.alpha);
    CHECK(read.config.dropout == config.dropout);
    CHECK(read.config.use_rslora == config.use_rslora);
    CHECK(names(match_targets(*lab.model, read.config.targets)) ==
          names(match_targets(*lab.model, config.targets)));
    REQUIRE(read.adapter->lora.size() == adapter->lora.size());
    for (auto& [name, lora] : adapter->lora) {
      CHECK(read.adapter->find(name)->a.value.to_floats() == lora.a.value.to_floats());
      CHECK(read.adapter->find(name)->b.value.to_floats() == lora.b.value.to_floats());
      CHECK(read.adapter->find(name)->scale == lora.scale);
    }
    save_peft(folder.path() / "two", *read.adapter, read.config, "some/base");
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      CHECK(read_file(folder.path() / "one" / file) == read_file(folder.path() / "two" / file));
  }
}

TEST_CASE("New keys of PEFT are ignored while they are empty and refused by name when they are not") {
  Lab lab;
  TemporaryFolder folder;
  auto adapter = lab.adapter({.r = 2});
  auto load = [&] { load_peft(folder.path(), *lab.model, lab.memory, DType::f32); };
  auto refused = [&](const std::string& key, const Json& value) {
    save_peft(folder.path(), *adapter, {.r = 2}, "base");
    set_key(folder.path(), key, value);
    return message_of(ErrorKind::data, load);
  };
  for (const char* key : {"alora_invocation_tokens", "kasa_config", "use_dora", "a_key_of_tomorrow"})
    for (const Json& empty : {Json(), Json(false), Json::object(), Json::array()})
      CHECK(refused(key, empty) == "no error");
  CHECK(refused("init_lora_weights", "gaussian") == "no error");
  CHECK(refused("target_modules", nullptr) == "no error");
  CHECK(refused("target_modules", ".*_proj") == "no error");
  CHECK_THAT(refused("use_dora", true), Catch::Contains("`use_dora`: true is not supported"));
  CHECK_THAT(refused("modules_to_save", {"lm_head"}), Catch::Contains("`modules_to_save`"));
  CHECK_THAT(refused("bias", "all"), Catch::Contains("`bias`: \"all\""));
  CHECK_THAT(refused("rank_pattern", {{"q_proj", 4}}), Catch::Contains("`rank_pattern`"));
  CHECK_THAT(refused("alpha_pattern", {{"q_proj", 4}}), Catch::Contains("`alpha_pattern`"));
  CHECK_THAT(refused("init_lora_weights", "pissa"), Catch::Contains("`init_lora_weights`: \"pissa\""));
  CHECK_THAT(refused("peft_type", "IA3"), Catch::Contains("`peft_type`"));
  CHECK_THAT(refused("r", "two"), Catch::Contains("`r`"));
}

TEST_CASE("An adapter with a missing or misshapen tensor or for another model is refused") {
  Lab lab;
  TemporaryFolder folder;
  auto q = lab.adapter({.r = 2, .targets = {"q_proj"}});
  auto load = [&] { load_peft(folder.path(), *lab.model, lab.memory, DType::f32); };
  save_peft(folder.path(), *q, {.r = 2, .targets = {"q_proj", "v_proj"}}, "base");
  CHECK_THAT(message_of(ErrorKind::data, load),
             Catch::Contains("no lora_A for `model.layers.0.self_attn.v_proj`"));
  save_peft(folder.path(), *q, {.r = 3, .targets = {"q_proj"}}, "base");
  CHECK_THAT(message_of(ErrorKind::data, load), Catch::Contains("expected shape [3, 24], found [2, 24]"));

  Lora lora = q->lora.begin()->second;
  q->lora["model.layers.7.self_attn.q_proj"] = lora;
  save_peft(folder.path(), *q, {.r = 2, .targets = {"q_proj"}}, "base");
  CHECK_THAT(message_of(ErrorKind::data, load),
             Catch::Contains("no linear `model.layers.7.self_attn.q_proj`"));

  std::vector<float> values(4);
  std::vector<TensorOut> out = {
      {"base_model.model.lm_head.weight", DType::f32, {2, 2}, std::as_bytes(std::span(values))}};
  write_safetensors(folder.path() / "adapter_model.safetensors", out);
  CHECK_THAT(message_of(ErrorKind::data, load),
             Catch::Contains("`base_model.model.lm_head.weight` is not supported"));
  std::filesystem::remove(folder.path() / "adapter_model.safetensors");
  CHECK_THAT(message_of(ErrorKind::data, load), Catch::Contains("no adapter_model.safetensors"));
  std::filesystem::remove(folder.path() / "adapter_config.json");
  CHECK_THAT(message_of(ErrorKind::data, load), Catch::Contains("no adapter_config.json"));
}

TEST_CASE("An adapter tensor of whole numbers or with NaN is refused by its name") {
  Lab lab;
  TemporaryFolder folder;
  LoraConfig config{.r = 2, .targets = {"q_proj"}};
  auto adapter = lab.adapter(config);
  const Path path = folder.path() / "adapter_model.safetensors";
  // Reads a file whose second tensor has another type or another first value.
  auto refusal = [&](DType type, float first) {
    save_peft(folder.path(), *adapter, config, "tiny");
    std::vector<std::vector<float>> values;
    std::vector<TensorOut> out;
    const SafetensorsFile file(path);
    for (const auto& [name, view] : file.tensors()) {
      values.push_back(to_floats(view));
      out.push_back({name, out.size() == 1 ? type : DType::f32, view.shape, {}});
    }
    values[1][0] = first;
    for (size_t i = 0; i < out.size(); ++i) out[i].bytes = std::as_bytes(std::span(values[i]));
    write_safetensors(path, out);
    return message_of(ErrorKind::data, [&] { load_peft(folder.path(), *lab.model, lab.memory, DType::f32); });
  };
  const std::string tensor = "lora_B of `model.layers.0.self_attn.q_proj`";
  CHECK(refusal(DType::f32, 0) == "no error");
  CHECK_THAT(refusal(DType::i32, 0), Catch::Contains(tensor) && Catch::Contains("found i32"));
  CHECK_THAT(refusal(DType::f32, std::nanf("")), Catch::Contains(tensor) && Catch::Contains("NaN"));
  CHECK_THAT(refusal(DType::f32, HUGE_VALF), Catch::Contains(tensor));
}

TEST_CASE("Adapter configurations of the field are read or refused by a key", "[golden]") {
  const Path root = test_data() / "01_models/peft_configs";
  if (missing(root)) return;
  int read = 0, refused = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    INFO(entry.path().string());
    std::string message = message_of(ErrorKind::data, [&] {
      PeftConfig config = read_peft_config(entry.path() / "adapter_config.json");
      CHECK(config.lora.r > 0);
    });
    (message == "no error" ? read : refused) += 1;
    if (message != "no error") CHECK_THAT(message, Catch::Contains("is not supported"));
  }
  CHECK(read > 0);
  CHECK(refused > 0);
}
