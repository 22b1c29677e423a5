// Falcon 7B (Almazrouei et al. 2023): all heads of q, then one of k and one of v in one projection; attention
// and feed-forward part read the same norm, and both are added to its input.

#include <array>
#include <utility>

#include "core/models/decoder.h"
#include "core/models/families.h"

namespace qlora {

namespace {

struct Block {
  LayerNormWeights norm;
  LinearPtr qkv, dense, up, down;
};

struct Weights {
  Tensor embed, head;  // head is empty when tied
  LayerNormWeights norm;
  std::vector<Block> blocks;

  void visit(const HfConfig& c, WeightVisitor& v) {
    const int64_t hidden = c.hidden_size, ff = c.intermediate_size, q = c.heads * c.head_dim;
    const int64_t fused = q + 2 * c.kv_heads * c.head_dim;
    const WeightSpec tokens = {"transformer.word_embeddings.weight", {c.vocab_size, hidden}};
    v.table(tokens, embed);
    v.norm("transformer.ln_f", hidden, norm);
    v.head({"lm_head.weight", tokens.shape}, head, c.tied_head, tokens);
    blocks.resize(static_cast<size_t>(c.layers));
    for (size_t i = 0; i < blocks.size(); ++i) {
      Block& b = blocks[i];
      const std::string at = "transformer.h." + std::to_string(i) + ".";
      v.norm(at + "input_layernorm", hidden, b.norm);
      v.linear({at + "self_attention.query_key_value", fused, hidden, c.qkv_bias}, b.qkv);
      v.linear({at + "self_attention.dense", hidden, q, c.o_bias}, b.dense);
      v.linear({at + "mlp.dense_h_to_4h", ff, hidden, c.mlp_bias}, b.up);
      v.linear({at + "mlp.dense_4h_to_h", hidden, ff, c.mlp_bias}, b.down);
    }
  }
};

class Falcon final : public DecoderOf<Weights> {
 public:
  Falcon(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options)
      : DecoderOf(std::move(config), folder, memory, options,
                  {.prefix = "transformer.",
                   .ignored = {".rotary_emb.inv_freq"}}) {}

 private:
  Var begin(Context& c) const override { return embedding(c, w_.embed); }
  Var end(Context& c, const Var& x) const override { return layer_norm(c, w_.norm, x, config_.norm_eps); }
  Var block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const override;
  Var attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles, const Var& norm) const;
  Var fed_forward(Context& c, const Block& b, Var norm) const;
};

Var Falcon::attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles,
                     const Var& norm) const {
  Var fused = linear(c, *b.qkv, norm);
  const int64_t kv = config_.kv_heads * config_.head_dim;
  const std::array<int64_t, 3> widths = {config_.heads * config_.head_dim, kv, kv};
  std::vector<Var> qkv = split_columns(c, fused, 1, widths);
  fused = Var();  // not kept while attention runs
  return attend(c, angles, std::move(qkv), layer);
}

// The feed-forward part from its norm up to its last linear.
Var Falcon::fed_forward(Context& c, const Block& b, Var norm) const {
  const Var up = linear(c, *b.up, norm);
  norm = Var();
  return activate(c, config_.activation, up);
}

Var Falcon::block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const {
  const Block& b = w_.blocks[static_cast<size_t>(layer)];
  Var norm = layer_norm(c, b.norm, x, config_.norm_eps, Readers::products);
  const Var mixed = wanted_of(c, attended(c, b, layer, angles, norm));
  const Var in = wanted_of(c, x);
  norm = wanted_of(c, norm);
  Context few = wanted_only(c), last = last_ops(few);
  const Var f = fed_forward(few, b, std::move(norm));
  return add(last, add(last, in, linear(last, *b.dense, mixed)), linear(last, *b.down, f));
}

}  // namespace

std::vector<WeightSpec> falcon_weights(const HfConfig& c) {
  return list_weights([&c, w = Weights()](WeightVisitor& v) mutable { w.visit(c, v); });
}

std::shared_ptr<const Model> make_falcon(HfConfig config, const ModelFolder& folder, Memory& memory,
                                         const LoadOptions& options) {
  return std::make_shared<const Falcon>(std::move(config), folder, memory, options);
}

}  // namespace qlora
