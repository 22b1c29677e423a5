#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/base/test_data.h"
#include "core/models/hf_config.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

HfConfig read(const std::string& text) {
  test::TemporaryFolder folder;
  write_file(folder.path() / "config.json", text);
  return read_hf_config(folder.path() / "config.json");
}

}  // namespace

TEST_CASE("absent keys mean the defaults of the family") {
  HfConfig llama = read(R"({"model_type": "llama"})");
  CHECK(llama.vocab_size == 32000);
  CHECK(llama.kv_heads == 32);
  CHECK(llama.head_dim == 128);
  CHECK_FALSE(llama.tied_head);
  CHECK(llama.windows == std::vector<int64_t>(32, 0));
  HfConfig mistral = read(R"({"model_type": "mistral"})");
  CHECK(mistral.kv_heads == 8);
  CHECK(mistral.windows == std::vector<int64_t>(32, 4096));
  CHECK(read(R"({"model_type": "mistral", "sliding_window": null})").windows == std::vector<int64_t>(32, 0));
  HfConfig qwen = read(R"({"model_type": "qwen2"})");
  CHECK(qwen.qkv_bias);
  CHECK_FALSE(qwen.o_bias);
  HfConfig qwen3 = read(R"({"model_type": "qwen3", "num_attention_heads": 16,
    "num_key_value_heads": 8, "hidden_size": 1024})");
  CHECK(qwen3.head_dim == 128);
  CHECK(qwen3.head_norms);
  CHECK_FALSE(qwen3.qkv_bias);
  CHECK(qwen3.windows == std::vector<int64_t>(32, 0));
  HfConfig gemma =
      read(R"({"model_type": "gemma2", "num_hidden_layers": 3, "final_logit_softcapping": null})");
  CHECK(gemma.windows == std::vector<int64_t>{4096, 0, 4096});
  CHECK(gemma.tied_head);
  CHECK(gemma.activation == Activation::gelu_tanh);
  CHECK(gemma.query_scalar == 256);
  CHECK(gemma.score_softcap == 50);
  CHECK(gemma.logit_softcap == 0);
  HfConfig phi = read(R"({"model_type": "phi3", "num_hidden_layers": 2})");
  CHECK(phi.windows == std::vector<int64_t>{0, 0});
  CHECK(phi.norm_eps == 1e-5);
  CHECK(read(R"({"model_type": "phi3", "num_hidden_layers": 2, "sliding_window": 2047})").windows ==
        std::vector<int64_t>{2047, 2047});
}

TEST_CASE("absent keys mean the defaults of the families with LayerNorm") {
  HfConfig neox = read(R"({"model_type": "gpt_neox"})");
  CHECK(neox.layers == 44);
  CHECK(neox.head_dim == 96);
  CHECK(neox.rotary_dim == 24);
  CHECK(neox.parallel_residual);
  CHECK(neox.activation == Activation::gelu);
  CHECK_FALSE(neox.tied_head);
  HfConfig opt = read(R"({"model_type": "opt"})");
  CHECK(opt.intermediate_size == 3072);
  CHECK(opt.rotary_dim == 0);
  CHECK(opt.activation == Activation::relu);
  CHECK((opt.tied_head && opt.qkv_bias && opt.norm_first && opt.final_norm));
  CHECK(opt.embedding_size == 768);
  HfConfig after =
      read(R"({"model_type": "opt", "do_layer_norm_before": false, "word_embed_proj_dim": 512})");
  CHECK_FALSE((after.norm_first || after.final_norm));
  CHECK(after.embedding_size == 512);
  HfConfig gpt2 = read(R"({"model_type": "gpt2", "n_embd": 100, "n_head": 4, "n_inner": null})");
  CHECK(gpt2.intermediate_size == 400);
  CHECK(gpt2.max_positions == 1024);
  CHECK(gpt2.head_dim == 25);
  CHECK(gpt2.activation == Activation::gelu_tanh);
  HfConfig falcon = read(R"({"model_type": "falcon"})");
  CHECK(falcon.kv_heads == 1);
  CHECK(falcon.head_dim == 64);
  CHECK(falcon.rotary_dim == 64);
  CHECK_FALSE(falcon.qkv_bias);
  HfConfig old = read(R"({"model_type": "RefinedWebModel", "n_layer": 3, "n_head": 5, "hidden_size": 320})");
  CHECK(old.layers == 3);
  CHECK(old.heads == 5);
}

TEST_CASE("what a family with LayerNorm does not compute is refused by its key") {
  CHECK_THROWS_WITH(read(R"({"model_type": "falcon", "alibi": true})"),
                    Contains("alibi: true is not supported"));
  CHECK_THROWS_WITH(read(R"({"model_type": "falcon", "multi_query": false})"),
                    Contains("multi_query: false is not supported"));
  CHECK_THROWS_WITH(read(R"({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": true})"),
                    Contains("scale_attn_by_inverse_layer_idx: true is not supported"));
  CHECK_THROWS_WITH(read(R"({"model_type": "gpt2", "n_embd": 10, "n_head": 4})"),
                    Contains("n_embd 10 is no multiple of n_head 4"));
  CHECK_THROWS_WITH(read(R"({"model_type": "gpt_neox", "rotary_pct": 1.5})"),
                    Contains("partial_rotary_factor 1.5"));
  CHECK_THROWS_WITH(read(R"({"model_type": "gpt_neox", "rotary_pct": 0.01})"),
                    Contains("0 elements of a head are rotated"));
  CHECK_THROWS_WITH(read(R"({"model_type": "opt", "activation_function": "rleu"})"),
                    Contains("did you mean `relu`"));
}

TEST_CASE("old and new spellings of a config are the same config") {
  HfConfig old =
      read(R"({"model_type": "llama", "torch_dtype": "bfloat16", "rope_theta": 500000.0, "rope_scaling":
    {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}})");
  HfConfig now =
      read(R"({"model_type": "llama", "dtype": "bfloat16", "rope_parameters": {"rope_theta": 500000.0,
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64}})");
  CHECK(old.rope == now.rope);
  CHECK(old.rope.theta == 500000);
  CHECK(old.dtype == "bfloat16");
  CHECK(now.dtype == "bfloat16");
  HfConfig old_part = read(R"({"model_type": "gpt_neox", "rotary_emb_base": 5000, "rotary_pct": 0.5})");
  HfConfig new_part = read(R"({"model_type": "gpt_neox", "rope_parameters":
    {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5}})");
  CHECK(old_part.rope == new_part.rope);
  CHECK(old_part.rotary_dim == 48);
}

TEST_CASE("qwen2 applies a window only when it is switched on") {
  HfConfig off =
      read(R"({"model_type": "qwen2", "num_hidden_layers": 3, "sliding_window": 4, "max_window_layers": 1,
    "use_sliding_window": false})");
  CHECK(off.windows == std::vector<int64_t>{0, 0, 0});
  HfConfig on =
      read(R"({"model_type": "qwen2", "num_hidden_layers": 3, "sliding_window": 4, "max_window_layers": 1,
    "use_sliding_window": true})");
  CHECK(on.windows == std::vector<int64_t>{0, 4, 4});
  HfConfig named =
      read(R"({"model_type": "qwen2", "num_hidden_layers": 2, "sliding_window": 4, "max_window_layers": 0,
    "use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention"]})");
  CHECK(named.windows == std::vector<int64_t>{4, 0});
}

TEST_CASE("end tokens are one number or a list or absent") {
  CHECK(read(R"({"model_type": "llama", "eos_token_id": 2})").eos_ids == std::vector<int32_t>{2});
  CHECK(read(R"({"model_type": "llama", "eos_token_id": [7, 8]})").eos_ids == std::vector<int32_t>{7, 8});
  HfConfig none = read(R"({"model_type": "llama", "eos_token_id": null})");
  CHECK(none.eos_ids.empty());
  CHECK(none.bos_id == -1);
}

TEST_CASE("end tokens of a generation_config.json are joined to those of config.json") {
  test::TemporaryFolder folder;
  const Path config = folder.path() / "config.json", generation = folder.path() / "generation_config.json";
  write_file(config, R"({"model_type": "gemma2", "eos_token_id": 1})");
  const auto joined = [&](const std::string& text) {
    write_file(generation, text);
    return read_hf_config(config).eos_ids;
  };
  CHECK(joined(R"({"eos_token_id": [107, 1]})") == std::vector<int32_t>{1, 107});
  CHECK(joined(R"({"eos_token_id": 107})") == std::vector<int32_t>{1, 107});
  CHECK(joined(R"({"temperature": 0.6})") == std::vector<int32_t>{1});
  CHECK_THROWS_WITH(joined(R"({"eos_token_id": "<eos>"})"),
                    Contains("generation_config.json: eos_token_id must hold token ids"));
}

TEST_CASE("what a config cannot mean is an error that names file and key") {
  auto message = [](const std::string& body) {
    try {
      read("{\"model_type\": \"llama\", " + body + "}");
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::data);
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK_THAT(message(R"("hidden_size": "big")"), Contains("config.json: hidden_size") && Contains("big"));
  CHECK_THAT(message(R"("num_hidden_layers": 0)"), Contains("num_hidden_layers must be positive"));
  CHECK_THAT(message(R"("num_attention_heads": 6, "hidden_size": 48, "num_key_value_heads": 4)"),
             Contains("num_key_value_heads 4"));
  CHECK_THAT(message(R"("hidden_act": "gelu")"), Contains("hidden_act `gelu`; this family computes silu"));
  CHECK(message(R"("hidden_act": "swish")").empty());
  CHECK_THAT(message(R"("num_hidden_layers": 4000000000)"),
             Contains("num_hidden_layers must be at most 65536, found 4000000000"));
  CHECK_THAT(message(R"("vocab_size": 2147483648)"), Contains("vocab_size must be at most 2147483647"));
  CHECK_THAT(message(R"("vocab_size": 18446744073709551615)"), Contains("vocab_size must be a whole number"));
  for (const char* id : {"4294967298", "18446744073709551615"})
    CHECK_THAT(message(std::string("\"eos_token_id\": ") + id), Contains("eos_token_id must hold token ids"));
  CHECK_THAT(message(R"("num_hidden_layers": 2, "layer_types": ["full_attention", "slidng_attention"])"),
             Contains("layer_types: unknown type of layer `slidng_attention`") &&
                 Contains("did you mean `sliding_attention`"));
  CHECK_THROWS_WITH(read(R"({"model_type": "qwen2", "use_sliding_window": true, "max_window_layers": -1})"),
                    Contains("max_window_layers must not be negative, found -1"));
  CHECK_THAT(message(R"("rope_scaling": {"rope_type": "yarn", "factor": 4})"), Contains("yarn"));
  CHECK_THAT(message(R"("rope_scaling": {"rope_type": "llama3", "factor": 4})"),
             Contains("original_max_position"));
  CHECK_THAT(message(R"("rope_parameters": {"full_attention": {"rope_theta": 1e6}})"),
             Contains("rope parameters: full_attention with parameters of its own is not supported"));
  CHECK_THAT(message(R"("partial_rotary_factor": 0.5)"),
             Contains("config.json: partial_rotary_factor 0.5; expected 1"));
  CHECK_THAT(message(R"("rope_scaling": {"partial_rotary_factor": 0.5})"),
             Contains("config.json: partial_rotary_factor 0.5; expected 1"));
  CHECK_THROWS_WITH(read(R"({"model_type": "gpt_neox", "partial_rotary_factor": 0.5})"),
                    Contains("partial_rotary_factor 0.5; expected 0.25"));
  CHECK(message(R"("partial_rotary_factor": 1.0)").empty());
  CHECK_THAT(message(R"("quantization_config": {"quant_method": "gptq"})"), Contains("already quantized"));
  CHECK_THROWS_WITH(read(R"({"model_type": "phi3", "rope_scaling": {"type": "longrope"}})"),
                    Contains("rope_type `longrope`") && Contains("not supported"));
  CHECK_THROWS_WITH(read(R"({"model_type": "gemma2", "attn_logit_softcapping": -1})"),
                    Contains("attn_logit_softcapping must not be negative, found -1"));
  CHECK_THROWS_WITH(read(R"({"model_type": "gemma2", "hidden_activation": "gelu"})"),
                    Contains("hidden_activation `gelu`; this family computes gelu_pytorch_tanh"));
  CHECK_THROWS_WITH(read(R"({"model_type": "lama"})"), Contains("did you mean `llama`"));
  CHECK_THROWS_AS(read("{\"model_type\": \"llama\""), Error);
}

TEST_CASE("rope frequencies fall from one by powers of theta and linear scaling divides them") {
  RopeConfig rope;
  std::vector<float> plain = rope_inv_freq(rope, 8);
  REQUIRE(plain.size() == 4);
  CHECK(plain[0] == 1.0f);
  CHECK(plain[2] == Approx(0.01));
  rope.type = "linear";
  rope.factor = 4;
  CHECK(rope_inv_freq(rope, 8)[2] == Approx(0.0025));
}
