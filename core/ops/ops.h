#pragma once
// The differentiable ops. Each checks its operands (errors name the op, the tensor and the shapes), runs the
// forward kernel, and records one closure that calls the backward kernel.

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/ops/context.h"
#include "core/ops/head.h"
#include "core/quant/frozen.h"

namespace qlora {

class Offload;

// One to three frozen linears that share x: y_i = w_i(x) with the adapters of the axis' spans. Where x can be
// made again (Var::again), backward does so instead of keeping it.
std::vector<Var> linear(Context&, std::span<const FrozenLinear* const> weights, const Var& x);
Var linear(Context&, const FrozenLinear& weight, const Var& x);

// Rows of a frozen table [vocab, dim] at the axis' tokens, times `scale`. No gradient.
Var embedding(Context&, const Tensor& table, float scale = 1);
// Rows of a frozen table at the axis' positions, `first` rows further down. No gradient. A position that the
// table does not have is an Error(data).
Var position_embedding(Context&, const Tensor& table, int64_t first = 0);
// Who reads a result: products alone (of linears, of attention), for whom it is of Context::kept_type.
enum class Readers : uint8_t { any, products };
// Of every row of x, or of `heads` pieces of it: x [rows, heads * weight.size()].
Var rms_norm(Context&, const Tensor& weight, const Var& x, double eps, Readers = Readers::any,
             int64_t heads = 1);
// x + y and its norm, in one pass; `readers` are those of the norm.
struct NormOfSum {
  Var sum, norm;
};
NormOfSum add_rms_norm(Context&, const Tensor& weight, const Var& x, const Var& y, double eps,
                       Readers readers = Readers::any);
struct LayerNormWeights {
  Tensor weight, bias;  // [dim]; bias may be empty
};
Var layer_norm(Context&, const LayerNormWeights&, const Var& x, double eps, Readers = Readers::any);
NormOfSum add_layer_norm(Context&, const LayerNormWeights&, const Var& x, const Var& y, double eps,
                         Readers readers = Readers::any);

// cos and sin of the axis' positions, made once per forward pass.
struct RopeAngles {
  Tensor cos, sin;  // [rows, elements of a head that are rotated / 2]
};
RopeAngles rope_angles(Context&, std::span<const float> inv_freq);
// x [rows, heads * head_dim]. Heads that are wider than the angles keep what lies past them. Attention alone
// reads the result: it is of Context::kept_type.
Var rope(Context&, const RopeAngles&, const Var& x, int64_t heads);

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0, window = 0;
  double scale = 1;
  Operands operands = Operands::as_stored;
  double softcap = 0;  // of scores; 0: none
  Tensor bias = {};    // of scores, by head and distance [heads, distances]; or empty. No gradient.
};
// Causal attention inside every sequence. With c.cache, keys and values are appended to the cache of `layer`
// first. With c.prefixes, sequences go on from shared beginnings. With c.wanted and no tape, only what lies
// between the first and the last wanted row of each sequence is computed.
Var attention(Context&, const Var& q, const Var& k, const Var& v, const AttentionShape&, int64_t layer);
// act(x), act(gate) * up, and that with silu.
Var activate(Context&, Activation, const Var& x);
Var gated(Context&, Activation, const Var& gate, const Var& up);
Var swiglu(Context&, const Var& gate, const Var& up);
// The parts of a fused projection. A row of x is so many groups of columns, a group one part after another,
// of `widths`; result i [rows, groups * widths[i]] has part i of every group.
std::vector<Var> split_columns(Context&, const Var& x, int64_t groups, std::span<const int64_t> widths);
Var add(Context&, const Var& a, const Var& b);
// Rows of x at distinct ids.
Var gather_rows(Context&, const Var& x, std::span<const int32_t> ids);

// The rows of x that the context wants, and the context of those rows alone. Past its attention, the last
// block of a model has no use for others.
Var wanted_of(Context&, const Var& x);
Context wanted_only(const Context&);

// Keeps only the block's input, with `offload` (offload.h) in memory of the host; runs the block again, on
// its own tape, when its gradient is wanted. The block's last ops should run under last_ops(c).
Var checkpoint(Context&, const Var& x, const std::function<Var(Context&, const Var&)>& block,
               const std::shared_ptr<Offload>& offload = nullptr);
// The context for the last ops of a block: those whose outputs go into the block's output and nowhere else.
// When the block runs again, nobody reads them, and `linear` and `add` compute only what their own gradients
// need.
Context last_ops(const Context&);

// Head and cross entropy over the rows that have labels, in chunks of rows, so that [rows, vocab] never
// exists. Returns the loss of every row (f64, 0 where targets[row] < 0). With a tape and x.needs_grad(), runs
// the backward pass of the whole tape for the *sum* of the losses (nothing is divided here).
std::vector<double> lm_loss(Context&, const OutputHead& head, const Var& hidden,
                            std::span<const int32_t> targets);

// Logits [ids.size(), vocab] of the given rows, with the head's softcap. No gradient.
Tensor logits_of(Context&, const OutputHead& head, const Tensor& hidden, std::span<const int32_t> rows);

}  // namespace qlora
