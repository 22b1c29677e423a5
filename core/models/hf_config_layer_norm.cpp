// config.json of the families with LayerNorm. What an absent key means is what transformers takes for it.

#include <array>

#include "core/models/config_keys.h"

namespace qlora {

namespace {

// A key, and what it means where it is absent.
struct Size {
  const char* key;
  int64_t absent;
};

struct Sizes {
  int64_t vocab;
  Size hidden, intermediate, layers, heads, positions;  // intermediate 0: four times hidden
};

void read_sizes(const Keys& k, const Sizes& s, HfConfig& c) {
  const auto read = [&k](const Size& size) { return k.positive(size.key, size.absent); };
  c.vocab_size = k.positive("vocab_size", s.vocab);
  c.hidden_size = read(s.hidden);
  c.intermediate_size =
      read({s.intermediate.key, s.intermediate.absent > 0 ? s.intermediate.absent : 4 * c.hidden_size});
  c.layers = k.positive(s.layers.key, s.layers.absent, kMaxLayers);
  c.heads = read(s.heads);
  c.kv_heads = c.heads;
  QLORA_CHECK(c.hidden_size % c.heads == 0, data, "{}: {} {} is no multiple of {} {}", k.origin(),
              s.hidden.key, c.hidden_size, s.heads.key, c.heads);
  c.head_dim = c.hidden_size / c.heads;
  c.max_positions = read(s.positions);
  c.windows.assign(static_cast<size_t>(c.layers), 0);
}

// A switch that must stand as the program computes.
void require(const Keys& k, const char* key, bool fallback, bool needed) {
  QLORA_CHECK(k.flag(key, fallback) == needed, data, "{}: {}: {} is not supported", k.origin(), key, !needed);
}

void read_gpt_neox(const Keys& k, HfConfig& c) {
  read_sizes(k,
             {.vocab = 50432,
              .hidden = {"hidden_size", 6144},
              .intermediate = {"intermediate_size", 24576},
              .layers = {"num_hidden_layers", 44},
              .heads = {"num_attention_heads", 64},
              .positions = {"max_position_embeddings", 2048}},
             c);
  c.rope = read_rope(k, k.find("rotary_emb_base") != nullptr ? "rotary_emb_base" : "rope_theta", "rotary_pct",
                     0.25);
  set_rotary(k, c);
  c.norm_eps = k.number("layer_norm_eps", 1e-5);
  c.activation = read_activation(k, "hidden_act", "gelu");
  c.parallel_residual = k.flag("use_parallel_residual", true);
  c.qkv_bias = c.o_bias = k.flag("attention_bias", true);
  c.mlp_bias = true;
  c.tied_head = k.flag("tie_word_embeddings", false);
}

void read_opt(const Keys& k, HfConfig& c) {
  read_sizes(k,
             {.vocab = 50272,
              .hidden = {"hidden_size", 768},
              .intermediate = {"ffn_dim", 3072},
              .layers = {"num_hidden_layers", 12},
              .heads = {"num_attention_heads", 12},
              .positions = {"max_position_embeddings", 2048}},
             c);
  require(k, "layer_norm_elementwise_affine", true, true);
  c.norm_eps = 1e-5;
  c.activation = read_activation(k, "activation_function", "relu");
  c.norm_first = k.flag("do_layer_norm_before", true);
  c.final_norm = c.norm_first && !k.flag("_remove_final_layer_norm", false);
  c.embedding_size = k.positive("word_embed_proj_dim", c.hidden_size);
  c.qkv_bias = c.o_bias = c.mlp_bias = k.flag("enable_bias", true);
  c.tied_head = k.flag("tie_word_embeddings", true);
}

void read_gpt2(const Keys& k, HfConfig& c) {
  read_sizes(k,
             {.vocab = 50257,
              .hidden = {"n_embd", 768},
              .intermediate = {"n_inner", 0},
              .layers = {"n_layer", 12},
              .heads = {"n_head", 12},
              .positions = {"n_positions", 1024}},
             c);
  require(k, "scale_attn_weights", true, true);
  require(k, "scale_attn_by_inverse_layer_idx", false, false);
  require(k, "add_cross_attention", false, false);
  c.norm_eps = k.number("layer_norm_epsilon", 1e-5);
  c.activation = read_activation(k, "activation_function", "gelu_new");
  c.qkv_bias = c.o_bias = c.mlp_bias = true;
  c.tied_head = k.flag("tie_word_embeddings", true);
}

// Falcon 7B's kind alone: one head of keys and values, rotary embedding, one norm a block. RefinedWebModel
// wrote other names.
void read_falcon(const Keys& k, HfConfig& c) {
  const bool old = k.find("n_layer") != nullptr;
  read_sizes(k,
             {.vocab = 65024,
              .hidden = {"hidden_size", 4544},
              .intermediate = {"ffn_hidden_size", 0},
              .layers = {old ? "n_layer" : "num_hidden_layers", 32},
              .heads = {old ? "n_head" : "num_attention_heads", 71},
              .positions = {"max_position_embeddings", 2048}},
             c);
  require(k, "alibi", false, false);
  require(k, "new_decoder_architecture", false, false);
  require(k, "multi_query", true, true);
  require(k, "parallel_attn", true, true);
  c.kv_heads = 1;
  c.rope = read_rope(k);
  set_rotary(k, c);
  c.norm_eps = k.number("layer_norm_epsilon", 1e-5);
  c.activation = read_activation(k, "activation", "gelu");
  c.parallel_residual = true;
  c.qkv_bias = c.o_bias = c.mlp_bias = k.flag("bias", false);
  c.tied_head = k.flag("tie_word_embeddings", true);
}

constexpr std::array<ConfigReader, 5> kReaders = {{
    {"gpt_neox", read_gpt_neox},
    {"opt", read_opt},
    {"gpt2", read_gpt2},
    {"falcon", read_falcon},
    {"RefinedWebModel", read_falcon},
}};

}  // namespace

std::span<const ConfigReader> layer_norm_readers() {
  return kReaders;
}

}  // namespace qlora
