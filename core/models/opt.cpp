// OPT (Zhang et al. 2022): learned positions, relu, norms before the parts of a block or, in the 350M, after
// their sums; there the embedding is narrower than the blocks, and two matrices lie between.

#include <array>
#include <utility>

#include "core/models/decoder.h"
#include "core/models/families.h"

namespace qlora {

namespace {

// The first rows of the table of positions belong to none.
constexpr int64_t kFirstPosition = 2;

struct Block {
  LayerNormWeights norm1, norm2;
  LinearPtr q, k, v, o, up, down;
};

struct Weights {
  Tensor embed, positions, head;   // head is empty when tied
  Tensor project_in, project_out;  // empty where rows of the embedding are as wide as the blocks
  LayerNormWeights norm;
  std::vector<Block> blocks;

  void visit(const HfConfig& c, WeightVisitor& v) {
    const std::string top = "model.decoder.";
    const int64_t hidden = c.hidden_size, narrow = c.embedding_size;
    const WeightSpec tokens = {top + "embed_tokens.weight", {c.vocab_size, narrow}};
    v.table(tokens, embed);
    v.table({top + "embed_positions.weight", {c.max_positions + kFirstPosition, hidden}}, positions);
    if (narrow != hidden) v.table({top + "project_in.weight", {hidden, narrow}}, project_in);
    if (narrow != hidden) v.table({top + "project_out.weight", {narrow, hidden}}, project_out);
    if (c.final_norm) v.norm(top + "final_layer_norm", hidden, norm);
    v.head({"lm_head.weight", tokens.shape}, head, c.tied_head, tokens);
    blocks.resize(static_cast<size_t>(c.layers));
    for (size_t i = 0; i < blocks.size(); ++i)
      visit_block(c, top + "layers." + std::to_string(i) + ".", blocks[i], v);
  }

 private:
  static void visit_block(const HfConfig& c, const std::string& at, Block& b, WeightVisitor& v) {
    const int64_t hidden = c.hidden_size, ff = c.intermediate_size;
    v.norm(at + "self_attn_layer_norm", hidden, b.norm1);
    v.norm(at + "final_layer_norm", hidden, b.norm2);
    v.linear({at + "self_attn.q_proj", hidden, hidden, c.qkv_bias}, b.q);
    v.linear({at + "self_attn.k_proj", hidden, hidden, c.qkv_bias}, b.k);
    v.linear({at + "self_attn.v_proj", hidden, hidden, c.qkv_bias}, b.v);
    v.linear({at + "self_attn.out_proj", hidden, hidden, c.o_bias}, b.o);
    v.linear({at + "fc1", ff, hidden, c.mlp_bias}, b.up);
    v.linear({at + "fc2", hidden, ff, c.mlp_bias}, b.down);
  }
};

class Opt final : public DecoderOf<Weights> {
 public:
  Opt(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options)
      : DecoderOf(std::move(config), folder, memory, options, {.prefix = "model."}) {
    if (!w_.project_in) return;
    project_in_ = dense_linear("model.decoder.project_in", w_.project_in, options.operands);
    project_out_ = dense_linear("model.decoder.project_out", w_.project_out, options.operands);
  }

 private:
  Var begin(Context& c) const override;
  Var end(Context& c, const Var& x) const override;
  Var block(Context& c, int64_t layer, const RopeAngles& angles, const Var& x) const override;
  Var attended(Context& c, const Block& b, int64_t layer, Var norm) const;
  Var fed_forward(Context& c, const Block& b, Var norm) const;

  LinearPtr project_in_, project_out_;
};

Var Opt::begin(Context& c) const {
  const Var tokens = embedding(c, w_.embed);
  return add(c, project_in_ ? linear(c, *project_in_, tokens) : tokens,
             position_embedding(c, w_.positions, kFirstPosition));
}

Var Opt::end(Context& c, const Var& x) const {
  const Var y = config_.final_norm ? layer_norm(c, w_.norm, x, config_.norm_eps) : x;
  return project_out_ ? linear(c, *project_out_, y) : y;
}

Var Opt::attended(Context& c, const Block& b, int64_t layer, Var norm) const {
  const std::array<const FrozenLinear*, 3> weights = {b.q.get(), b.k.get(), b.v.get()};
  std::vector<Var> qkv = linear(c, weights, norm);
  norm = Var();  // not kept while attention runs
  return attend(c, {}, std::move(qkv), layer);
}

// The feed-forward part up to its last linear.
Var Opt::fed_forward(Context& c, const Block& b, Var norm) const {
  const Var up = linear(c, *b.up, norm);
  norm = Var();
  return activate(c, config_.activation, up);
}

Var Opt::block(Context& c, int64_t layer, const RopeAngles&, const Var& x) const {
  const Block& b = w_.blocks[static_cast<size_t>(layer)];
  const double eps = config_.norm_eps;
  Var mixed = wanted_of(
      c, attended(c, b, layer, config_.norm_first ? layer_norm(c, b.norm1, x, eps, Readers::products) : x));
  const Var in = wanted_of(c, x);
  Context few = wanted_only(c), last = last_ops(few);
  const Var out = linear(few, *b.o, mixed);
  mixed = Var();
  if (!config_.norm_first) {
    const Var y = add_layer_norm(few, b.norm1, in, out, eps).norm;
    return add_layer_norm(few, b.norm2, y, linear(few, *b.down, fed_forward(few, b, y)), eps).norm;
  }
  NormOfSum y = add_layer_norm(few, b.norm2, in, out, eps, Readers::products);
  const Var f = fed_forward(few, b, std::move(y.norm));
  return add(last, y.sum, linear(last, *b.down, f));
}

}  // namespace

std::vector<WeightSpec> opt_weights(const HfConfig& c) {
  return list_weights([&c, w = Weights()](WeightVisitor& v) mutable { w.visit(c, v); });
}

std::shared_ptr<const Model> make_opt(HfConfig config, const ModelFolder& folder, Memory& memory,
                                      const LoadOptions& options) {
  return std::make_shared<const Opt>(std::move(config), folder, memory, options);
}

}  // namespace qlora
