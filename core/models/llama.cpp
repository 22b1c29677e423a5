// LLaMA (Touvron et al. 2023) and what differs from it by configuration alone: Llama 3 (rope scaling),
// Mistral (attention window, head_dim apart), Qwen2 (biases of q, k and v), Qwen3 (norms of the heads of q
// and k), Phi-3 (Abdin et al. 2024: q, k and v in one linear, gate and up in another, each with one adapter).

#include <array>
#include <utility>

#include "core/models/decoder.h"
#include "core/models/families.h"

namespace qlora {

namespace {

struct Block {
  Tensor norm1, norm2;    // [hidden]
  Tensor q_norm, k_norm;  // [head_dim], where heads have norms
  LinearPtr q, k, v, gate, up;
  LinearPtr qkv, gate_up;  // in their place, where linears are fused
  LinearPtr o, down;
};

struct Weights {
  Tensor embed, norm, head;  // head is empty when tied
  std::vector<Block> blocks;

  void visit(const HfConfig& c, WeightVisitor& v) {
    const WeightSpec tokens = {"model.embed_tokens.weight", {c.vocab_size, c.hidden_size}};
    v.table(tokens, embed);
    v.dense({"model.norm.weight", {c.hidden_size}}, norm);
    v.head({"lm_head.weight", tokens.shape}, head, c.tied_head, tokens);
    blocks.resize(static_cast<size_t>(c.layers));
    for (size_t i = 0; i < blocks.size(); ++i)
      visit_block(c, "model.layers." + std::to_string(i) + ".", blocks[i], v);
  }

 private:
  static void visit_block(const HfConfig& c, const std::string& at, Block& b, WeightVisitor& v) {
    const int64_t hidden = c.hidden_size, ff = c.intermediate_size;
    const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    v.dense({at + "input_layernorm.weight", {hidden}}, b.norm1);
    v.dense({at + "post_attention_layernorm.weight", {hidden}}, b.norm2);
    if (c.head_norms) v.dense({at + "self_attn.q_norm.weight", {c.head_dim}}, b.q_norm);
    if (c.head_norms) v.dense({at + "self_attn.k_norm.weight", {c.head_dim}}, b.k_norm);
    if (c.fused_linears) {
      v.linear({at + "self_attn.qkv_proj", q + 2 * kv, hidden}, b.qkv);
    } else {
      v.linear({at + "self_attn.q_proj", q, hidden, c.qkv_bias}, b.q);
      v.linear({at + "self_attn.k_proj", kv, hidden, c.qkv_bias}, b.k);
      v.linear({at + "self_attn.v_proj", kv, hidden, c.qkv_bias}, b.v);
    }
    v.linear({at + "self_attn.o_proj", hidden, q, c.o_bias}, b.o);
    if (c.fused_linears) {
      v.linear({at + "mlp.gate_up_proj", 2 * ff, hidden}, b.gate_up);
    } else {
      v.linear({at + "mlp.gate_proj", ff, hidden, c.mlp_bias}, b.gate);
      v.linear({at + "mlp.up_proj", ff, hidden, c.mlp_bias}, b.up);
    }
    v.linear({at + "mlp.down_proj", hidden, ff, c.mlp_bias}, b.down);
  }
};

class Llama final : public DecoderOf<Weights> {
 public:
  Llama(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options)
      : DecoderOf(std::move(config), folder, memory, options, {.ignored = {".rotary_emb.inv_freq"}}) {}

 private:
  Var begin(Context& c) const override { return embedding(c, w_.embed); }
  Var end(Context& c, const Var& x) const override { return rms_norm(c, w_.norm, x, config_.norm_eps); }
  Var block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const override;
  std::vector<Var> qkv_of(Context& c, const Block& b, Var norm) const;
  Var attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles, const Var& x) const;
  Var fed_forward(Context& c, const Block& b, Var norm) const;
};

std::vector<Var> Llama::qkv_of(Context& c, const Block& b, Var norm) const {
  if (!config_.fused_linears) {
    const std::array<const FrozenLinear*, 3> weights = {b.q.get(), b.k.get(), b.v.get()};
    return linear(c, weights, norm);
  }
  const Var fused = linear(c, *b.qkv, norm);
  norm = Var();  // not kept while columns are copied
  const int64_t kv = config_.kv_heads * config_.head_dim;
  const std::array<int64_t, 3> widths = {config_.heads * config_.head_dim, kv, kv};
  return split_columns(c, fused, 1, widths);
}

Var Llama::attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles, const Var& x) const {
  std::vector<Var> qkv = qkv_of(c, b, rms_norm(c, b.norm1, x, config_.norm_eps, Readers::products));
  if (config_.head_norms) {
    qkv[0] = rms_norm(c, b.q_norm, qkv[0], config_.norm_eps, Readers::any, config_.heads);
    qkv[1] = rms_norm(c, b.k_norm, qkv[1], config_.norm_eps, Readers::any, config_.kv_heads);
  }
  return attend(c, angles, std::move(qkv), layer);
}

// The feed-forward part from its norm up to its last linear.
Var Llama::fed_forward(Context& c, const Block& b, Var norm) const {
  std::vector<Var> both;
  if (config_.fused_linears) {
    const Var fused = linear(c, *b.gate_up, norm);
    norm = Var();  // not kept while columns are copied
    both = split_columns(c, fused, 1, std::array{config_.intermediate_size, config_.intermediate_size});
  } else {
    const std::array<const FrozenLinear*, 2> weights = {b.gate.get(), b.up.get()};
    both = linear(c, weights, norm);
  }
  norm = Var();  // not kept while the activation runs
  return swiglu(c, both[0], both[1]);
}

Var Llama::block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const {
  const Block& b = w_.blocks[static_cast<size_t>(layer)];
  Var mixed = wanted_of(c, attended(c, b, layer, angles, x));
  Context few = wanted_only(c);
  NormOfSum y = add_rms_norm(few, b.norm2, wanted_of(c, x), linear(few, *b.o, mixed), config_.norm_eps,
                             Readers::products);
  mixed = Var();
  const Var f = fed_forward(few, b, std::move(y.norm));
  Context last = last_ops(few);
  return add(last, y.sum, linear(last, *b.down, f));
}

}  // namespace

std::vector<WeightSpec> llama_weights(const HfConfig& c) {
  return list_weights([&c, w = Weights()](WeightVisitor& v) mutable { w.visit(c, v); });
}

std::shared_ptr<const Model> make_llama(HfConfig config, const ModelFolder& folder, Memory& memory,
                                        const LoadOptions& options) {
  return std::make_shared<const Llama>(std::move(config), folder, memory, options);
}

}  // namespace qlora
