// GPT-NeoX (Black et al. 2022) and Pythia: q, k and v of a head beside each other in one projection, rotary
// embedding of the first part of a head, and attention and feed-forward part beside each other, or after one
// another.

#include <array>
#include <utility>

#include "core/models/decoder.h"
#include "core/models/families.h"

namespace qlora {

namespace {

struct Block {
  LayerNormWeights norm1, norm2;
  LinearPtr qkv, dense, up, down;
};

struct Weights {
  Tensor embed, head;  // head is empty when tied
  LayerNormWeights norm;
  std::vector<Block> blocks;

  void visit(const HfConfig& c, WeightVisitor& v) {
    const int64_t hidden = c.hidden_size, ff = c.intermediate_size, q = c.heads * c.head_dim;
    const WeightSpec tokens = {"gpt_neox.embed_in.weight", {c.vocab_size, hidden}};
    v.table(tokens, embed);
    v.norm("gpt_neox.final_layer_norm", hidden, norm);
    v.head({"embed_out.weight", tokens.shape}, head, c.tied_head, tokens);
    blocks.resize(static_cast<size_t>(c.layers));
    for (size_t i = 0; i < blocks.size(); ++i) {
      Block& b = blocks[i];
      const std::string at = "gpt_neox.layers." + std::to_string(i) + ".";
      v.norm(at + "input_layernorm", hidden, b.norm1);
      v.norm(at + "post_attention_layernorm", hidden, b.norm2);
      v.linear({at + "attention.query_key_value", 3 * q, hidden, c.qkv_bias}, b.qkv);
      v.linear({at + "attention.dense", hidden, q, c.o_bias}, b.dense);
      v.linear({at + "mlp.dense_h_to_4h", ff, hidden, c.mlp_bias}, b.up);
      v.linear({at + "mlp.dense_4h_to_h", hidden, ff, c.mlp_bias}, b.down);
    }
  }
};

class GptNeox final : public DecoderOf<Weights> {
 public:
  GptNeox(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options)
      : DecoderOf(std::move(config), folder, memory, options,
                  {.prefix = "gpt_neox.",
                   .ignored = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"},
                   .head = "embed_out"}) {}

 private:
  Var begin(Context& c) const override { return embedding(c, w_.embed); }
  Var end(Context& c, const Var& x) const override { return layer_norm(c, w_.norm, x, config_.norm_eps); }
  Var block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const override;
  Var attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles, const Var& x) const;
  Var fed_forward(Context& c, const Block& b, Var norm) const;
};

Var GptNeox::attended(Context& c, const Block& b, int64_t layer, const RopeAngles& angles,
                      const Var& x) const {
  Var fused = linear(c, *b.qkv, layer_norm(c, b.norm1, x, config_.norm_eps, Readers::products));
  const std::array<int64_t, 3> widths = {config_.head_dim, config_.head_dim, config_.head_dim};
  std::vector<Var> qkv = split_columns(c, fused, config_.heads, widths);
  fused = Var();  // not kept while attention runs
  return attend(c, angles, std::move(qkv), layer);
}

// The feed-forward part from its norm up to its last linear.
Var GptNeox::fed_forward(Context& c, const Block& b, Var norm) const {
  const Var up = linear(c, *b.up, norm);
  norm = Var();
  return activate(c, config_.activation, up);
}

Var GptNeox::block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const {
  const Block& b = w_.blocks[static_cast<size_t>(layer)];
  Var mixed = wanted_of(c, attended(c, b, layer, angles, x));
  const Var in = wanted_of(c, x);
  Context few = wanted_only(c), last = last_ops(few);
  if (config_.parallel_residual) {
    const Var f = fed_forward(few, b, layer_norm(few, b.norm2, in, config_.norm_eps, Readers::products));
    return add(last, add(last, in, linear(last, *b.dense, mixed)), linear(last, *b.down, f));
  }
  NormOfSum y =
      add_layer_norm(few, b.norm2, in, linear(few, *b.dense, mixed), config_.norm_eps, Readers::products);
  mixed = Var();
  const Var f = fed_forward(few, b, std::move(y.norm));
  return add(last, y.sum, linear(last, *b.down, f));
}

}  // namespace

std::vector<WeightSpec> gpt_neox_weights(const HfConfig& c) {
  return list_weights([&c, w = Weights()](WeightVisitor& v) mutable { w.visit(c, v); });
}

std::shared_ptr<const Model> make_gpt_neox(HfConfig config, const ModelFolder& folder, Memory& memory,
                                           const LoadOptions& options) {
  return std::make_shared<const GptNeox>(std::move(config), folder, memory, options);
}

}  // namespace qlora
