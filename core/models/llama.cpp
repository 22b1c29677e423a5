// LLaMA (Touvron et al. 2023) and what differs from it by configuration alone: Llama 3 (rope scaling),
// Mistral (attention window, head_dim apart), Qwen2 (biases of q, k and v), Qwen3 (norms of the heads of q
// and k).

#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <utility>

#include "core/models/families.h"
#include "core/models/weights.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

using LinearPtr = std::shared_ptr<FrozenWeight>;

struct Block {
  Tensor norm1, norm2;    // [hidden]
  Tensor q_norm, k_norm;  // [head_dim], where heads have norms
  LinearPtr q, k, v, o, gate, up, down;
  AttentionShape shape;
  int64_t layer = 0;
};

// The linears of a block: name below the layer, member, sizes.
struct LinearSlot {
  const char* name;
  LinearPtr Block::*member;
  int64_t out, in;
  bool bias;
};

std::array<LinearSlot, 7> linear_slots(const HfConfig& c) {
  int64_t hidden = c.hidden_size, ff = c.intermediate_size, q = c.heads * c.head_dim,
          kv = c.kv_heads * c.head_dim;
  return {{
      {"self_attn.q_proj", &Block::q, q, hidden, c.qkv_bias},
      {"self_attn.k_proj", &Block::k, kv, hidden, c.qkv_bias},
      {"self_attn.v_proj", &Block::v, kv, hidden, c.qkv_bias},
      {"self_attn.o_proj", &Block::o, hidden, q, c.o_bias},
      {"mlp.gate_proj", &Block::gate, ff, hidden, c.mlp_bias},
      {"mlp.up_proj", &Block::up, ff, hidden, c.mlp_bias},
      {"mlp.down_proj", &Block::down, hidden, ff, c.mlp_bias},
  }};
}

struct NormSlot {
  const char* name;
  Tensor Block::*member;
  int64_t size;
};

std::vector<NormSlot> norm_slots(const HfConfig& c) {
  std::vector<NormSlot> slots = {{"input_layernorm.weight", &Block::norm1, c.hidden_size},
                                 {"post_attention_layernorm.weight", &Block::norm2, c.hidden_size}};
  if (c.head_norms) {
    slots.push_back({"self_attn.q_norm.weight", &Block::q_norm, c.head_dim});
    slots.push_back({"self_attn.k_norm.weight", &Block::k_norm, c.head_dim});
  }
  return slots;
}

std::string layer_name(int64_t i) {
  return "model.layers." + std::to_string(i) + ".";
}

WeightSpec embed_spec(const HfConfig& c) {
  return {"model.embed_tokens.weight", {c.vocab_size, c.hidden_size}};
}
WeightSpec norm_spec(const HfConfig& c) {
  return {"model.norm.weight", {c.hidden_size}};
}
WeightSpec head_spec(const HfConfig& c) {
  return {"lm_head.weight", {c.vocab_size, c.hidden_size}};
}

class Llama final : public Model {
 public:
  Llama(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options);

  Var hidden(Context& c, std::vector<Tensor>* trace) const override;
  const FrozenLinear& head() const override { return *head_; }
  std::span<const LinearInfo> linears() const override { return infos_; }
  const FrozenLinear* find(std::string_view linear) const override;
  const HfConfig& config() const override { return config_; }
  size_t bytes() const override { return bytes_; }

 private:
  Block load_block(const WeightLoader& load, int64_t layer);
  Var attend(Context& c, const Block& b, const RopeAngles& angles, const Var& x) const;
  Var gated(Context& c, const Block& b, Var norm) const;
  Var block(Context& c, const Block& b, const RopeAngles& angles, const Var& x) const;

  HfConfig config_;
  std::vector<float> inv_freq_;
  Tensor embed_, norm_;
  std::vector<Block> blocks_;
  LinearPtr head_;
  std::vector<LinearInfo> infos_;
  std::map<std::string, const FrozenLinear*, std::less<>> by_name_;
  size_t bytes_ = 0;
};

Llama::Llama(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options)
    : config_(std::move(config)), inv_freq_(rope_inv_freq(config_.rope, config_.head_dim)) {
  std::vector<std::string> ignored = {".rotary_emb.inv_freq"};        // a buffer of old checkpoints
  if (config_.tied_head) ignored.push_back(head_spec(config_).name);  // a copy of the embedding
  check_weights(folder, llama_weights(config_), ignored);

  WeightLoader load(folder, memory, options);
  embed_ = load.table(embed_spec(config_));
  norm_ = load.dense(norm_spec(config_));
  head_ =
      dense_linear("lm_head", config_.tied_head ? embed_ : load.table(head_spec(config_)), options.operands);
  bytes_ = embed_.bytes() + norm_.bytes() + (config_.tied_head ? 0 : head_->bytes());
  for (int64_t i = 0; i < config_.layers; ++i) blocks_.push_back(load_block(load, i));
}

Block Llama::load_block(const WeightLoader& load, int64_t layer) {
  Block b;
  b.layer = layer;
  b.shape = {.heads = config_.heads,
             .kv_heads = config_.kv_heads,
             .head_dim = config_.head_dim,
             .window = config_.windows[static_cast<size_t>(layer)],
             .scale = 1 / std::sqrt(static_cast<double>(config_.head_dim)),
             .operands = load.options().operands};
  for (const NormSlot& n : norm_slots(config_)) {
    b.*n.member = load.dense({layer_name(layer) + n.name, {n.size}});
    bytes_ += (b.*n.member).bytes();
  }
  for (const LinearSlot& s : linear_slots(config_)) {
    std::string name = layer_name(layer) + s.name;
    LinearPtr w = load.linear(name, s.out, s.in, s.bias);
    bytes_ += w->bytes();
    by_name_.emplace(name, w.get());
    infos_.push_back({name, s.out, s.in});
    b.*s.member = std::move(w);
  }
  return b;
}

const FrozenLinear* Llama::find(std::string_view linear) const {
  auto found = by_name_.find(linear);
  return found == by_name_.end() ? nullptr : found->second;
}

Var Llama::attend(Context& c, const Block& b, const RopeAngles& angles, const Var& x) const {
  const std::array<const FrozenLinear*, 3> weights = {b.q.get(), b.k.get(), b.v.get()};
  std::vector<Var> qkv = linear(c, weights, rms_norm(c, b.norm1, x, config_.norm_eps));
  if (config_.head_norms) {
    qkv[0] = rms_norm(c, b.q_norm, qkv[0], config_.norm_eps, config_.heads);
    qkv[1] = rms_norm(c, b.k_norm, qkv[1], config_.norm_eps, config_.kv_heads);
  }
  qkv[0] = rope(c, angles, qkv[0], config_.heads);
  qkv[1] = rope(c, angles, qkv[1], config_.kv_heads);
  return attention(c, qkv[0], qkv[1], qkv[2], b.shape, b.layer);
}

// The feed-forward part from its norm up to its last linear.
Var Llama::gated(Context& c, const Block& b, Var norm) const {
  const std::array<const FrozenLinear*, 2> weights = {b.gate.get(), b.up.get()};
  std::vector<Var> both = linear(c, weights, norm);
  norm = Var();  // not kept while the activation runs
  return swiglu(c, both[0], both[1]);
}

Var Llama::block(Context& c, const Block& b, const RopeAngles& angles, const Var& x) const {
  Var mixed = wanted_of(c, attend(c, b, angles, x));
  Context few = wanted_only(c);
  NormOfSum y = add_rms_norm(few, b.norm2, wanted_of(c, x), linear(few, *b.o, mixed), config_.norm_eps);
  mixed = Var();
  Var f = gated(few, b, std::move(y.norm));
  Context last = last_ops(few);
  return add(last, y.sum, linear(last, *b.down, f));
}

Var Llama::hidden(Context& c, std::vector<Tensor>* trace) const {
  c.axis->validate(config_.vocab_size);
  RopeAngles angles = rope_angles(c, inv_freq_);
  Var x = embedding(c, embed_);
  if (trace != nullptr) trace->push_back(x.value);
  for (const Block& b : blocks_) {
    auto run = [this, &b, angles](Context& inner, const Var& in) { return block(inner, b, angles, in); };
    Context here = c;
    if (&b != &blocks_.back()) here.wanted = nullptr;
    x = here.checkpointing == Checkpointing::block ? checkpoint(here, x, run) : run(here, x);
    if (trace != nullptr) trace->push_back(x.value);
  }
  return rms_norm(c, norm_, x, config_.norm_eps);
}

}  // namespace

std::vector<WeightSpec> llama_weights(const HfConfig& c) {
  std::vector<WeightSpec> specs = {embed_spec(c), norm_spec(c)};
  if (!c.tied_head) specs.push_back(head_spec(c));
  for (int64_t i = 0; i < c.layers; ++i) {
    for (const NormSlot& n : norm_slots(c)) specs.push_back({layer_name(i) + n.name, {n.size}});
    for (const LinearSlot& s : linear_slots(c)) {
      specs.push_back({layer_name(i) + s.name + ".weight", {s.out, s.in}});
      if (s.bias) specs.push_back({layer_name(i) + s.name + ".bias", {s.out}});
    }
  }
  return specs;
}

std::shared_ptr<const Model> make_llama(HfConfig config, const ModelFolder& folder, Memory& memory,
                                        const LoadOptions& options) {
  return std::make_shared<const Llama>(std::move(config), folder, memory, options);
}

}  // namespace qlora
