#pragma once
// What families share: the walk over the blocks, and the linears by their names. A family adds its weights
// (weight_visitor.h) and three pieces of forward code.

#include <string>
#include <utility>
#include <vector>

#include "core/models/weight_visitor.h"

namespace qlora {

class Decoder : public Model {
 public:
  Var hidden(Context& c, std::vector<Tensor>* trace) const final;
  const FrozenLinear& head() const final { return *head_; }
  std::span<const LinearInfo> linears() const final { return loaded_.linears; }
  const FrozenLinear* find(std::string_view linear) const final;
  const HfConfig& config() const final { return config_; }
  Operands operands() const final { return operands_; }
  size_t bytes() const final { return loaded_.bytes; }

 protected:
  Decoder(HfConfig config, Operands operands);
  // The blocks' input of the axis' tokens.
  virtual Var begin(Context&) const = 0;
  // Computes only wanted rows past its attention; products and sums of which nothing but its output is made
  // run under last_ops(). The angles are empty where the family has no rotary embedding.
  virtual Var block(Context&, int64_t layer, const RopeAngles&, const Var& x) const = 0;
  // From the last block's output to the hidden states.
  virtual Var end(Context&, const Var& x) const = 0;

  AttentionShape attention_shape(int64_t layer) const;
  // Attention over q, k and v, after rotary embedding where there is any. Give them away: what is not rotated
  // yet is not kept.
  Var attend(Context&, const RopeAngles&, std::vector<Var> qkv, int64_t layer) const;

  // Set by DecoderOf.
  LoadedWeights loaded_;
  LinearPtr head_;

  const HfConfig config_;

 private:
  const Operands operands_;
  const std::vector<float> inv_freq_;
};

// What files of a family may differ in: names without `prefix`, and buffers, whose names end so.
struct FileNames {
  std::string prefix = {};
  std::vector<std::string> ignored = {};
  std::string head = "lm_head";
};

// A Decoder of `Weights`: a struct with the tables embed and head (empty when tied), and visit(config, visitor),
// which names and places all of them.
template <class Weights>
class DecoderOf : public Decoder {
 protected:
  DecoderOf(HfConfig config, const ModelFolder& folder, Memory& memory, const LoadOptions& options,
            const FileNames& names)
      : Decoder(std::move(config), options.operands) {
    loaded_ = load_weights(folder, memory, options, names.prefix, names.ignored,
                           [this](WeightVisitor& v) { w_.visit(config_, v); });
    head_ = dense_linear(names.head, config_.tied_head ? w_.embed : w_.head, options.operands);
  }

  Weights w_;
};

}  // namespace qlora
