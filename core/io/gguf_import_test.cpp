#include <catch2/catch.hpp>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/base/test_data.h"
#include "core/io/gguf_import.h"
#include "core/io/gguf_test_file.h"
#include "core/io/safetensors.h"

using namespace qlora;
using Catch::Matchers::Contains;
using test::GgufBuilder;

namespace {

constexpr uint64_t kHidden = 8, kMlp = 12, kVocab = 6;  // two heads of 4, one key-value head

std::vector<float> row_numbers(uint64_t rows, uint64_t columns) {
  std::vector<float> v;
  for (uint64_t r = 0; r < rows; ++r) v.insert(v.end(), columns, static_cast<float>(r));
  return v;
}

GgufBuilder& matrix(GgufBuilder& b, const std::string& name, uint64_t rows, uint64_t columns) {
  return b.floats(name, {rows, columns}, row_numbers(rows, columns));
}

GgufBuilder metadata(const std::string& pre = "smollm") {
  GgufBuilder b;
  b.text("general.architecture", "llama").integer("llama.block_count", 1).integer("llama.context_length", 64);
  b.integer("llama.embedding_length", kHidden).integer("llama.feed_forward_length", kMlp);
  b.integer("llama.attention.head_count", 2).integer("llama.attention.head_count_kv", 1);
  b.number("llama.rope.freq_base", 10000).number("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre);
  b.texts("tokenizer.ggml.tokens", {"<s>", "</s>", "a", "b", "ab", "<user>"});
  b.integers("tokenizer.ggml.token_type", {3, 3, 1, 1, 1, 4}).texts("tokenizer.ggml.merges", {"a b"});
  b.integer("tokenizer.ggml.bos_token_id", 0).integer("tokenizer.ggml.eos_token_id", 1);
  b.text("tokenizer.chat_template", "{{ messages }}");
  return b;
}

// Without `skip`; the elements of a row are the row's number.
GgufBuilder with_tensors(GgufBuilder b, const std::string& skip = "") {
  auto add = [&](const std::string& name, uint64_t rows, uint64_t columns) {
    if (name != skip) matrix(b, name, rows, columns);
  };
  auto norm = [&](const std::string& name) { b.floats(name, {kHidden}, std::vector<float>(kHidden, 1)); };
  add("token_embd.weight", kVocab, kHidden);
  norm("output_norm.weight");
  norm("blk.0.attn_norm.weight");
  norm("blk.0.ffn_norm.weight");
  add("blk.0.attn_q.weight", kHidden, kHidden);
  add("blk.0.attn_k.weight", kHidden / 2, kHidden);
  add("blk.0.attn_v.weight", kHidden / 2, kHidden);
  add("blk.0.attn_output.weight", kHidden, kHidden);
  add("blk.0.ffn_gate.weight", kMlp, kHidden);
  add("blk.0.ffn_up.weight", kMlp, kHidden);
  add("blk.0.ffn_down.weight", kHidden, kMlp);
  return b;
}

Json read_json(const Path& path) {
  return parse_json(read_file(path), path.string());
}

struct Import {
  test::TemporaryFolder folder;
  Path gguf = folder.path() / "x.gguf", out = folder.path() / "out";

  explicit Import(const GgufBuilder& b) { std::ofstream(gguf, std::ios::binary) << b.build(); }
  std::string message() const {
    try {
      import_gguf(gguf, out);
    } catch (const Error& e) {
      CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) ==
            1);  // the GGUF file alone
      return e.what();
    }
    return "no error";
  }
};

std::string message_of(const GgufBuilder& b) {
  return Import(b).message();
}

// The first element of every row: the row of the file that it came from.
std::vector<float> rows_of(const ModelFolder& model, const std::string& name) {
  const TensorView* view = model.find(name);
  REQUIRE(view != nullptr);
  const std::vector<float> all = to_floats(*view);
  std::vector<float> out;
  for (size_t i = 0; i < all.size(); i += static_cast<size_t>(view->shape[1])) out.push_back(all[i]);
  return out;
}

}  // namespace

TEST_CASE("a small LLaMA becomes a Hugging Face folder with q and k rows in its order") {
  Import import(with_tensors(metadata()));
  size_t last = 0, total = 0;
  import_gguf(import.gguf, import.out / "",
              [&](size_t done, size_t all) {  // a slash at the end is no other folder
                CHECK(done > last);
                last = done;
                total = all;
              });
  CHECK(last == total);
  ModelFolder model(import.out);
  CHECK(model.names().size() == 11);
  CHECK(rows_of(model, "model.layers.0.self_attn.q_proj.weight") ==
        std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7});
  CHECK(rows_of(model, "model.layers.0.self_attn.k_proj.weight") == std::vector<float>{0, 2, 1, 3});
  CHECK(rows_of(model, "model.layers.0.self_attn.v_proj.weight") == std::vector<float>{0, 1, 2, 3});
  const Json config = read_json(import.out / "config.json");
  CHECK(config.at("tie_word_embeddings") == true);
  CHECK(config.at("head_dim") == 4);
  CHECK(config.at("rms_norm_eps") == 1e-5);
  CHECK(config.at("bos_token_id") == 0);
  CHECK_FALSE(config.contains("pad_token_id"));
  CHECK(read_json(import.out / "generation_config.json").at("eos_token_id") == 1);
  const Json marker = read_json(import.out / "qlora_import.json");
  CHECK(marker.at("source") == "x.gguf");
  CHECK(marker.at("sha256") == hex(sha256(read_file(import.gguf))));
  import_gguf(import.gguf, import.out);  // again: replaces the import
  CHECK(ModelFolder(import.out).names().size() == 11);
}

TEST_CASE("the imported tokenizer has the steps that its pre-tokenizer name means") {
  auto tokenizer = [](const GgufBuilder& b) {
    Import import(with_tensors(b));
    import_gguf(import.gguf, import.out);
    return std::pair(read_json(import.out / "tokenizer.json"),
                     read_json(import.out / "tokenizer_config.json"));
  };
  auto [smollm, config] = tokenizer(metadata());
  CHECK(smollm.at("pre_tokenizer").at("pretokenizers")[0].at("type") == "Digits");
  CHECK(smollm.at("model").at("vocab").at("ab") == 4);
  CHECK(smollm.at("model").at("merges") == Json::array({Json::array({"a", "b"})}));
  CHECK(smollm.at("added_tokens").size() == 3);
  CHECK(smollm.at("added_tokens")[2].at("special") == false);
  CHECK(smollm.at("post_processor").at("single").size() == 1);
  CHECK(config.at("eos_token") == "</s>");
  CHECK(config.at("chat_template") == "{{ messages }}");
  CHECK(config.at("model_max_length") == 64);

  const Json gpt2 = tokenizer(metadata("gpt-2")).first;
  CHECK(gpt2.at("pre_tokenizer").at("type") == "ByteLevel");
  CHECK(gpt2.at("pre_tokenizer").at("use_regex") == true);
  const Json qwen = tokenizer(metadata("qwen2")).first;
  CHECK(qwen.at("normalizer").at("type") == "NFC");
  CHECK(qwen.at("pre_tokenizer").at("pretokenizers")[1].at("use_regex") == false);
  const Json llama = tokenizer(metadata("llama-bpe")).first;
  CHECK(llama.at("model").at("ignore_merges") == true);
  CHECK(llama.at("post_processor").at("single")[0].at("SpecialToken").at("id") == "<s>");
  CHECK(llama.at("post_processor").at("special_tokens").at("<s>").at("ids") == Json::array({0}));
}

TEST_CASE("what a Hugging Face LLaMA cannot say is refused and leaves nothing behind") {
  CHECK_THAT(message_of(with_tensors(metadata(), "blk.0.attn_k.weight")),
             Contains("no tensor `blk.0.attn_k.weight`"));
  GgufBuilder more = with_tensors(metadata());
  CHECK_THAT(message_of(matrix(more, "blk.0.attn_q.bias", 1, 8)),
             Contains("`blk.0.attn_q.bias` has no place"));
  GgufBuilder shape = with_tensors(metadata(), "blk.0.ffn_up.weight");
  CHECK_THAT(message_of(matrix(shape, "blk.0.ffn_up.weight", 8, 8)), Contains("[8, 8], expected [12, 8]"));
  CHECK_THAT(message_of(with_tensors(metadata("smolm"))), Contains("did you mean `smollm`"));
  CHECK_THAT(message_of(with_tensors(metadata().integer("llama.expert_count", 8))),
             Contains("mixture of experts"));
  CHECK_THAT(message_of(with_tensors(metadata().text("llama.rope.scaling.type", "yarn"))),
             Contains("rotary"));
  CHECK_THAT(message_of(with_tensors(metadata().number("llama.rope.scale_linear", 4))), Contains("rotary"));
  CHECK_THAT(message_of(with_tensors(metadata().number("llama.rope.scaling.factor", 2))), Contains("rotary"));
  CHECK_THAT(message_of(with_tensors(metadata().integer("llama.attention.key_length", 1u << 31))),
             Contains("llama.attention.key_length") && Contains("2147483648"));
  GgufBuilder layers;
  layers.text("general.architecture", "llama").integer("llama.block_count", 1u << 30);
  CHECK_THAT(message_of(layers.floats("token_embd.weight", {1, 1}, {0})),
             Contains("llama.block_count is 1073741824, but there are 1 tensors"));
  CHECK_THAT(message_of(with_tensors(metadata().integer("llama.rope.dimension_count", 2))),
             Contains("2 of 4"));
  CHECK_THAT(message_of(with_tensors(metadata().integer("tokenizer.ggml.padding_token_id", 9))),
             Contains("is 9"));
  GgufBuilder other;
  CHECK_THAT(message_of(other.text("general.architecture", "mamba")), Contains("`mamba`"));
}

TEST_CASE(
    "an import that fails while writing leaves nothing and does not replace a folder of something else") {
  Import import(with_tensors(metadata()));
  auto stop = [](size_t, size_t) { throw Error(ErrorKind::failure, "stopped"); };
  CHECK_THROWS_WITH(import_gguf(import.gguf, import.out, stop), "stopped");
  CHECK(std::distance(std::filesystem::directory_iterator(import.folder.path()), {}) == 1);
  std::filesystem::create_directory(import.out);
  write_file(import.out / "thesis.txt", "mine");
  CHECK_THROWS_WITH(import_gguf(import.gguf, import.out), Contains("not an imported model"));
  CHECK(read_file(import.out / "thesis.txt") == "mine");
  write_file(import.out / "config.json", "{}");  // a model that somebody has made
  write_file(import.out / "model.safetensors", "weights");
  CHECK_THROWS_WITH(import_gguf(import.gguf, import.out), Contains("not an imported model"));
  CHECK(read_file(import.out / "model.safetensors") == "weights");
}
