#include "core/models/decoder.h"

#include <cmath>
#include <utility>

#include "core/ops/kept_rows.h"
#include "core/ops/offload.h"

namespace qlora {

Decoder::Decoder(HfConfig config, Operands operands)
    : config_(std::move(config)),
      operands_(operands),
      inv_freq_(config_.rotary_dim > 0 ? rope_inv_freq(config_.rope, config_.rotary_dim)
                                       : std::vector<float>()) {}

const FrozenLinear* Decoder::find(std::string_view linear) const {
  auto found = loaded_.by_name.find(linear);
  return found == loaded_.by_name.end() ? nullptr : found->second;
}

AttentionShape Decoder::attention_shape(int64_t layer) const {
  return {.heads = config_.heads,
          .kv_heads = config_.kv_heads,
          .head_dim = config_.head_dim,
          .window = config_.windows[static_cast<size_t>(layer)],
          .scale = 1 / std::sqrt(config_.query_scalar > 0 ? config_.query_scalar
                                                          : static_cast<double>(config_.head_dim)),
          .operands = operands_,
          .softcap = config_.score_softcap};
}

Var Decoder::attend(Context& c, const RopeAngles& angles, std::vector<Var> qkv, int64_t layer) const {
  if (angles.cos) {
    qkv[0] = rope(c, angles, qkv[0], config_.heads);
    qkv[1] = rope(c, angles, qkv[1], config_.kv_heads);
  }
  return attention(c, qkv[0], qkv[1], qkv[2], attention_shape(layer), layer);
}

Var Decoder::hidden(Context& c, std::vector<Tensor>* trace) const {
  c.axis->validate(config_.vocab_size);
  const RopeAngles angles = inv_freq_.empty() ? RopeAngles() : rope_angles(c, inv_freq_);
  const std::shared_ptr<Offload> offload = make_offload(c);
  Var x = begin(c);
  if (trace != nullptr) trace->push_back(x.value);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    auto run = [this, layer, angles](Context& inner, const Var& in) {
      return block(inner, layer, angles, in);
    };
    Context here = c;
    if (layer + 1 < config_.layers) here.wanted = nullptr;
    if (c.tape != nullptr) here.kept_type = type_of_kept(c.backend, c.type, operands_);
    x = blocks_run_again(here.checkpointing) ? checkpoint(here, x, run, offload) : run(here, x);
    if (trace != nullptr) trace->push_back(x.value);
  }
  Context few = wanted_only(c);
  return end(few, x);
}

}  // namespace qlora
