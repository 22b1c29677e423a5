// Gemma 2 (Gemma Team 2024): norms multiply by 1 + w and also follow attention and the feed-forward part, the
// embedding is times sqrt(hidden_size), scores and logits have softcaps, every other layer has a window.

#include <array>
#include <cmath>
#include <utility>

#include "core/models/decoder.h"
#include "core/models/families.h"

namespace qlora {

namespace {

struct Block {
  Tensor before_attention, after_attention, before_mlp, after_mlp;  // norms, [hidden]
  LinearPtr q, k, v, o, gate, up, down;
};

struct Weights {
  Tensor embed, head, norm;  // head is empty when tied
  std::vector<Block> blocks;

  void visit(const HfConfig& c, WeightVisitor& v) {
    const int64_t hidden = c.hidden_size, ff = c.intermediate_size, q = c.heads * c.head_dim,
                  kv = c.kv_heads * c.head_dim;
    const WeightSpec tokens = {"model.embed_tokens.weight", {c.vocab_size, hidden}};
    v.table(tokens, embed);
    v.dense({"model.norm.weight", {hidden}, 1}, norm);
    v.head({"lm_head.weight", tokens.shape}, head, c.tied_head, tokens);
    blocks.resize(static_cast<size_t>(c.layers));
    for (size_t i = 0; i < blocks.size(); ++i) {
      Block& b = blocks[i];
      const std::string at = "model.layers." + std::to_string(i) + ".";
      v.dense({at + "input_layernorm.weight", {hidden}, 1}, b.before_attention);
      v.dense({at + "post_attention_layernorm.weight", {hidden}, 1}, b.after_attention);
      v.dense({at + "pre_feedforward_layernorm.weight", {hidden}, 1}, b.before_mlp);
      v.dense({at + "post_feedforward_layernorm.weight", {hidden}, 1}, b.after_mlp);
      v.linear({at + "self_attn.q_proj", q, hidden, c.qkv_bias}, b.q);
      v.linear({at + "self_attn.k_proj", kv, hidden, c.qkv_bias}, b.k);
      v.linear({at + "self_attn.v_proj", kv, hidden, c.qkv_bias}, b.v);
      v.linear({at + "self_attn.o_proj", hidden, q, c.o_bias}, b.o);
      v.linear({at + "mlp.gate_proj", ff, hidden}, b.gate);
      v.linear({at + "mlp.up_proj", ff, hidden}, b.up);
      v.linear({at + "mlp.down_proj", hidden, ff}, b.down);
    }
  }
};

class Gemma2 final : public DecoderOf<Weights> {
 public:
  Gemma2(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options)
      : DecoderOf(std::move(config), folder, memory, options, {.ignored = {".rotary_emb.inv_freq"}}) {}

 private:
  Var begin(Context& c) const override {
    return embedding(c, w_.embed, static_cast<float>(std::sqrt(static_cast<double>(config_.hidden_size))));
  }
  Var end(Context& c, const Var& x) const override { return rms_norm(c, w_.norm, x, config_.norm_eps); }
  Var block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const override;
  Var attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles, const Var& x) const;
  Var fed_forward(Context& c, const Block& b, Var norm) const;
};

Var Gemma2::attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles,
                     const Var& x) const {
  const std::array<const FrozenLinear*, 3> weights = {b.q.get(), b.k.get(), b.v.get()};
  std::vector<Var> qkv =
      linear(c, weights, rms_norm(c, b.before_attention, x, config_.norm_eps, Readers::products));
  return attend(c, angles, std::move(qkv), layer);
}

// The feed-forward part from its norm up to its last linear.
Var Gemma2::fed_forward(Context& c, const Block& b, Var norm) const {
  const std::array<const FrozenLinear*, 2> weights = {b.gate.get(), b.up.get()};
  const std::vector<Var> both = linear(c, weights, norm);
  norm = Var();  // not kept while the activation runs
  return gated(c, config_.activation, both[0], both[1]);
}

Var Gemma2::block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const {
  const Block& b = w_.blocks[static_cast<size_t>(layer)];
  Var mixed = wanted_of(c, attended(c, b, layer, angles, x));
  Context few = wanted_only(c);
  mixed = rms_norm(few, b.after_attention, linear(few, *b.o, mixed), config_.norm_eps);
  NormOfSum y = add_rms_norm(few, b.before_mlp, wanted_of(c, x), mixed, config_.norm_eps, Readers::products);
  mixed = Var();
  const Var f = fed_forward(few, b, std::move(y.norm));
  Context last = last_ops(few);
  return add(last, y.sum, rms_norm(few, b.after_mlp, linear(few, *b.down, f), config_.norm_eps));
}

}  // namespace

std::vector<WeightSpec> gemma2_weights(const HfConfig& c) {
  return list_weights([&c, w = Weights()](WeightVisitor& v) mutable { w.visit(c, v); });
}

std::shared_ptr<const Model> make_gemma2(HfConfig config, const ModelFolder& folder, Memory& memory,
                                         const LoadOptions& options) {
  return std::make_shared<const Gemma2>(std::move(config), folder, memory, options);
}

}  // namespace qlora
