// LLaMA (Touvron et al. 2023) and what differs from it by configuration alone: Llama 3 (rope scaling),
// Mistral (attention window, head_dim apart), Qwen2 (biases of q, k and v), Qwen3 (norms of the heads of q
// and k).

#include <array>
#include <utility>

#include "core/models/decoder.h"
#include "core/models/families.h"

namespace qlora {

namespace {

struct Block {
  Tensor norm1, norm2;    // [hidden]
  Tensor q_norm, k_norm;  // [head_dim], where heads have norms
  LinearPtr q, k, v, o, gate, up, down;
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
    v.linear({at + "self_attn.q_proj", q, hidden, c.qkv_bias}, b.q);
    v.linear({at + "self_attn.k_proj", kv, hidden, c.qkv_bias}, b.k);
    v.linear({at + "self_attn.v_proj", kv, hidden, c.qkv_bias}, b.v);
    v.linear({at + "self_attn.o_proj", hidden, q, c.o_bias}, b.o);
    v.linear({at + "mlp.gate_proj", ff, hidden, c.mlp_bias}, b.gate);
    v.linear({at + "mlp.up_proj", ff, hidden, c.mlp_bias}, b.up);
    v.linear({at + "mlp.down_proj", hidden, ff, c.mlp_bias}, b.down);
  }
};

class Llama final : public Decoder {
 public:
  Llama(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options)
      : Decoder(std::move(config), options.operands) {
    const std::vector<std::string> ignored = {".rotary_emb.inv_freq"};  // a buffer of old checkpoints
    loaded_ = load_weights(folder, memory, options, "", ignored,
                           [this](WeightVisitor& v) { w_.visit(config_, v); });
    head_ = dense_linear("lm_head", config_.tied_head ? w_.embed : w_.head, options.operands);
  }

 private:
  Var begin(Context& c) const override { return embedding(c, w_.embed); }
  Var end(Context& c, const Var& x) const override { return rms_norm(c, w_.norm, x, config_.norm_eps); }
  Var block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const override;
  Var attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles, const Var& x) const;
  Var fed_forward(Context& c, const Block& b, Var norm) const;

  Weights w_;
};

Var Llama::attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles, const Var& x) const {
  const std::array<const FrozenLinear*, 3> weights = {b.q.get(), b.k.get(), b.v.get()};
  std::vector<Var> qkv = linear(c, weights, rms_norm(c, b.norm1, x, config_.norm_eps));
  if (config_.head_norms) {
    qkv[0] = rms_norm(c, b.q_norm, qkv[0], config_.norm_eps, config_.heads);
    qkv[1] = rms_norm(c, b.k_norm, qkv[1], config_.norm_eps, config_.kv_heads);
  }
  return attend(c, angles, std::move(qkv), layer);
}

// The feed-forward part from its norm up to its last linear.
Var Llama::fed_forward(Context& c, const Block& b, Var norm) const {
  const std::array<const FrozenLinear*, 2> weights = {b.gate.get(), b.up.get()};
  const std::vector<Var> both = linear(c, weights, norm);
  norm = Var();  // not kept while the activation runs
  return swiglu(c, both[0], both[1]);
}

Var Llama::block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const {
  const Block& b = w_.blocks[static_cast<size_t>(layer)];
  Var mixed = wanted_of(c, attended(c, b, layer, angles, x));
  Context few = wanted_only(c);
  NormOfSum y = add_rms_norm(few, b.norm2, wanted_of(c, x), linear(few, *b.o, mixed), config_.norm_eps);
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
