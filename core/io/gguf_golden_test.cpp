#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base/file.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/io/gguf.h"
#include "core/io/gguf_tokenizer.h"
#include "core/io/safetensors.h"
#include "core/io/test_models.h"

using namespace qlora;

namespace {

Json read_json(const Path& path) {
  return parse_json(read_file(path), path.string());
}

// Merges come as pairs or as texts with a space; both as texts.
std::vector<std::string> merges(const Json& model) {
  std::vector<std::string> out;
  for (const Json& m : model.at("merges"))
    out.push_back(m.is_string() ? m.get<std::string>()
                                : m[0].get<std::string>() + " " + m[1].get<std::string>());
  return out;
}

}  // namespace

TEST_CASE("blocks of every GGUF type decode bit for bit like the library of the format", "[golden]") {
  const Path path = test::goldens() / "gguf/gguf_blocks.safetensors";
  if (test::missing(path)) return;
  SafetensorsFile file(path);
  int types = 0;
  for (const GgufTypeInfo& info : gguf_types()) {
    const TensorView* raw = file.find(std::string(info.name) + ".raw");
    if (raw == nullptr) {
      test::skip_part(std::string("no blocks of type ") + info.name);
      continue;
    }
    INFO(info.name);
    const TensorView& want = file.at(std::string(info.name) + ".f32");
    std::vector<float> out(static_cast<size_t>(want.size()));
    REQUIRE(static_cast<int64_t>(raw->bytes.size()) / info.bytes * info.elements == want.size());
    decode_gguf(info, raw->bytes, out.data());
    CHECK(std::memcmp(out.data(), want.bytes.data(), want.bytes.size()) == 0);
    ++types;
  }
  CHECK(types > 0);
}

TEST_CASE("the imported real model has the configuration and the tensors of its golden", "[golden]") {
  const Path folder = test::goldens() / "smollm2";
  if (test::missing(folder) || test::missing(test::smollm2())) return;
  const Json config = read_json(test::smollm2() / "config.json"),
             hashes = read_json(folder / "tensor_sha256.json");
  CHECK(config == read_json(folder / "config.json"));
  ModelFolder model(test::smollm2());
  CHECK(model.names().size() == hashes.size());
  for (const auto& [name, want] : hashes.items()) {
    INFO(name);
    const TensorView* view = model.find(name);
    REQUIRE(view != nullptr);
    CHECK(view->type == DType::f32);
    CHECK(hex(sha256(view->bytes)) == want);
  }
}

TEST_CASE("the imported tokenizer says the same as the original tokenizer.json", "[golden]") {
  const Path folder = test::test_data() / "02_tokenizers/smollm2";
  if (test::missing(folder) || test::missing(test::smollm2())) return;
  const Json ours = read_json(test::smollm2() / "tokenizer.json"),
             original = read_json(folder / "tokenizer.json");
  CHECK(ours.at("model").at("vocab") == original.at("model").at("vocab"));
  CHECK(merges(ours.at("model")) == merges(original.at("model")));
  for (const char* key : {"type", "ignore_merges", "byte_fallback", "fuse_unk", "unk_token"})
    CHECK(ours.at("model").at(key) == original.at("model").at(key));
  for (const char* key : {"added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"})
    CHECK(ours.at(key) == original.at(key));
  const Json config = read_json(test::smollm2() / "tokenizer_config.json");
  CHECK(config.at("chat_template") == read_file(folder / "chat_template.jinja"));
  for (const char* key : {"bos_token", "eos_token", "pad_token", "unk_token", "model_max_length"})
    CHECK(config.at(key) == read_json(folder / "tokenizer_config.json").at(key));
}

TEST_CASE("a vocabulary of GPT-2 in GGUF says the same as its vocab and merges", "[golden]") {
  const Path gguf = test::test_data() / "02_tokenizers/gguf_vocab/ggml-vocab-gpt-2.gguf";
  const Path vocabulary = test::test_data() / "02_tokenizers/gpt2/gpt2.vocab";
  if (test::missing(gguf) || test::missing(vocabulary)) return;
  const Json ours = parse_json(tokenizer_from_gguf(GgufFile(gguf)).tokenizer, "tokenizer.json");
  CHECK(ours.at("model").at("vocab") == read_json(vocabulary));
  CHECK(merges(ours.at("model")).size() == 50000);
  CHECK(ours.at("pre_tokenizer").at("type") == "ByteLevel");
}
