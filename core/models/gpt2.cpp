// GPT-2 (Radford et al. 2019): learned positions, q, k and v in one projection, gelu by tanh, and weights
// that files keep with inputs as rows (Conv1D).

#include <array>
#include <utility>

#include "core/models/decoder.h"
#include "core/models/families.h"

namespace qlora {

namespace {

struct Block {
  LayerNormWeights norm1, norm2;
  LinearPtr qkv, o, up, down;
};

struct Weights {
  Tensor embed, positions, head;  // head is empty when tied
  LayerNormWeights norm;
  std::vector<Block> blocks;

  void visit(const HfConfig& c, WeightVisitor& v) {
    const int64_t hidden = c.hidden_size, ff = c.intermediate_size;
    const WeightSpec tokens = {"transformer.wte.weight", {c.vocab_size, hidden}};
    v.table(tokens, embed);
    v.table({"transformer.wpe.weight", {c.max_positions, hidden}}, positions);
    v.norm("transformer.ln_f", hidden, norm);
    v.head({"lm_head.weight", tokens.shape}, head, c.tied_head, tokens);
    blocks.resize(static_cast<size_t>(c.layers));
    for (size_t i = 0; i < blocks.size(); ++i) {
      Block& b = blocks[i];
      const std::string at = "transformer.h." + std::to_string(i) + ".";
      v.norm(at + "ln_1", hidden, b.norm1);
      v.norm(at + "ln_2", hidden, b.norm2);
      v.linear({at + "attn.c_attn", 3 * hidden, hidden, c.qkv_bias, WeightOrder::in_out}, b.qkv);
      v.linear({at + "attn.c_proj", hidden, hidden, c.o_bias, WeightOrder::in_out}, b.o);
      v.linear({at + "mlp.c_fc", ff, hidden, c.mlp_bias, WeightOrder::in_out}, b.up);
      v.linear({at + "mlp.c_proj", hidden, ff, c.mlp_bias, WeightOrder::in_out}, b.down);
    }
  }
};

class Gpt2 final : public DecoderOf<Weights> {
 public:
  Gpt2(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options)
      : DecoderOf(std::move(config), folder, memory, options,
                  {.prefix = "transformer.",
                   .ignored = {".attn.bias", ".attn.masked_bias"}}) {}

 private:
  Var begin(Context& c) const override {
    return add(c, embedding(c, w_.embed), position_embedding(c, w_.positions));
  }
  Var end(Context& c, const Var& x) const override { return layer_norm(c, w_.norm, x, config_.norm_eps); }
  Var block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const override;
  Var attended(Context& c, const Block& b, int64_t layer, const Var& x) const;
  Var fed_forward(Context& c, const Block& b, Var norm) const;
};

Var Gpt2::attended(Context& c, const Block& b, int64_t layer, const Var& x) const {
  Var fused = linear(c, *b.qkv, layer_norm(c, b.norm1, x, config_.norm_eps, Readers::products));
  const std::array<int64_t, 3> widths = {config_.hidden_size, config_.hidden_size, config_.hidden_size};
  std::vector<Var> qkv = split_columns(c, fused, 1, widths);
  fused = Var();  // not kept while attention runs
  return attend(c, {}, std::move(qkv), layer);
}

// The feed-forward part up to its last linear.
Var Gpt2::fed_forward(Context& c, const Block& b, Var norm) const {
  const Var up = linear(c, *b.up, norm);
  norm = Var();
  return activate(c, config_.activation, up);
}

Var Gpt2::block(Context& c, int64_t layer, const RopeAngles&, const Var& x) const {
  const Block& b = w_.blocks[static_cast<size_t>(layer)];
  Var mixed = wanted_of(c, attended(c, b, layer, x));
  Context few = wanted_only(c), last = last_ops(few);
  NormOfSum y = add_layer_norm(few, b.norm2, wanted_of(c, x), linear(few, *b.o, mixed), config_.norm_eps,
                               Readers::products);
  mixed = Var();
  const Var f = fed_forward(few, b, std::move(y.norm));
  return add(last, y.sum, linear(last, *b.down, f));
}

}  // namespace

std::vector<WeightSpec> gpt2_weights(const HfConfig& c) {
  return list_weights([&c, w = Weights()](WeightVisitor& v) mutable { w.visit(c, v); });
}

std::shared_ptr<const Model> make_gpt2(HfConfig config, const ModelFolder& folder, Memory& memory,
                                       const LoadOptions& options) {
  return std::make_shared<const Gpt2>(std::move(config), folder, memory, options);
}

}  // namespace qlora
