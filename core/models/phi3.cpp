// Phi-3 (Abdin et al. 2024): a LLaMA whose projections are fused: q, k and v in one linear, gate and up in
// another, each with one adapter.

#include <array>
#include <utility>

#include "core/models/decoder.h"
#include "core/models/families.h"

namespace qlora {

namespace {

struct Block {
  Tensor norm1, norm2;  // [hidden]
  LinearPtr qkv, o, gate_up, down;
};

struct Weights {
  Tensor embed, head, norm;  // head is empty when tied
  std::vector<Block> blocks;

  void visit(const HfConfig& c, WeightVisitor& v) {
    const int64_t hidden = c.hidden_size, ff = c.intermediate_size, q = c.heads * c.head_dim;
    const int64_t fused = q + 2 * c.kv_heads * c.head_dim;
    const WeightSpec tokens = {"model.embed_tokens.weight", {c.vocab_size, hidden}};
    v.table(tokens, embed);
    v.dense({"model.norm.weight", {hidden}}, norm);
    v.head({"lm_head.weight", tokens.shape}, head, c.tied_head, tokens);
    blocks.resize(static_cast<size_t>(c.layers));
    for (size_t i = 0; i < blocks.size(); ++i) {
      Block& b = blocks[i];
      const std::string at = "model.layers." + std::to_string(i) + ".";
      v.dense({at + "input_layernorm.weight", {hidden}}, b.norm1);
      v.dense({at + "post_attention_layernorm.weight", {hidden}}, b.norm2);
      v.linear({at + "self_attn.qkv_proj", fused, hidden}, b.qkv);
      v.linear({at + "self_attn.o_proj", hidden, q}, b.o);
      v.linear({at + "mlp.gate_up_proj", 2 * ff, hidden}, b.gate_up);
      v.linear({at + "mlp.down_proj", hidden, ff}, b.down);
    }
  }
};

class Phi3 final : public Decoder {
 public:
  Phi3(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options)
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

Var Phi3::attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles, const Var& x) const {
  Var fused = linear(c, *b.qkv, rms_norm(c, b.norm1, x, config_.norm_eps));
  const int64_t kv = config_.kv_heads * config_.head_dim;
  const std::array<int64_t, 3> widths = {config_.heads * config_.head_dim, kv, kv};
  std::vector<Var> qkv = split_columns(c, fused, 1, widths);
  fused = Var();  // not kept while attention runs
  return attend(c, angles, std::move(qkv), layer);
}

// The feed-forward part from its norm up to its last linear.
Var Phi3::fed_forward(Context& c, const Block& b, Var norm) const {
  Var fused = linear(c, *b.gate_up, norm);
  norm = Var();  // not kept while the activation runs
  const std::array<int64_t, 2> widths = {config_.intermediate_size, config_.intermediate_size};
  const std::vector<Var> both = split_columns(c, fused, 1, widths);
  fused = Var();
  return gated(c, config_.activation, both[0], both[1]);
}

Var Phi3::block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const {
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

std::vector<WeightSpec> phi3_weights(const HfConfig& c) {
  return list_weights([&c, w = Weights()](WeightVisitor& v) mutable { w.visit(c, v); });
}

std::shared_ptr<const Model> make_phi3(HfConfig config, const ModelFolder& folder, Memory& memory,
                                       const LoadOptions& options) {
  return std::make_shared<const Phi3>(std::move(config), folder, memory, options);
}

}  // namespace qlora
