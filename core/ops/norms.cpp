#include <utility>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

// Which norm, and what it multiplies with and adds.
struct Norm {
  bool centered;  // layer norm; else of the root mean square alone
  Tensor weight, bias;
  double eps;
  Readers readers;
};

DType type_of(const Context& c, const Norm& norm) {
  return norm.readers == Readers::products ? c.kept_type : c.type;
}

// What of a row's moments backward reads; empty tensors where nothing is kept.
struct Moments {
  Tensor mean, rstd;
};

// A row may be several pieces as long as the weight: these are what is normalized.
int64_t pieces(const Norm& n, const Tensor& x) {
  return x.size() / n.weight.size();
}

// y (of its own type) and, unless they are empty, the moments and the sum of x and residual, whose norm y
// then is.
void normalize(const Norm& n, const Tensor& x, const Tensor& residual, const Tensor& sum, const Tensor& y,
               const Moments& kept) {
  if (n.centered) {
    x.backend().layer_norm({.x = x.data(),
                            .residual = residual.data(),
                            .sum = sum.data(),
                            .w = n.weight.data(),
                            .bias = n.bias.data(),
                            .y = y.data(),
                            .mean = kept.mean.data(),
                            .rstd = kept.rstd.data(),
                            .rows = pieces(n, x),
                            .cols = n.weight.size(),
                            .eps = n.eps,
                            .type = x.type(),
                            .y_type = y.type()});
    return;
  }
  x.backend().rms_norm({.x = x.data(),
                        .residual = residual.data(),
                        .sum = sum.data(),
                        .w = n.weight.data(),
                        .y = y.data(),
                        .rstd = kept.rstd.data(),
                        .rows = pieces(n, x),
                        .cols = n.weight.size(),
                        .eps = n.eps,
                        .type = x.type(),
                        .y_type = y.type()});
}

Moments room_for_moments(const Context& c, const Norm& n, int64_t rows) {
  Moments kept;
  if (n.centered) kept.mean = Tensor(c.memory, {rows}, c.type);
  kept.rstd = Tensor(c.memory, {rows}, c.type);
  return kept;
}

// The norm of x, made again: x is kept for backward anyway.
std::shared_ptr<const std::function<Tensor()>> again(const Tensor& x, const Norm& norm, DType type) {
  return std::make_shared<const std::function<Tensor()>>([x, norm, type] {
    Tensor y(x.memory(), x.shape(), type);
    normalize(norm, x, Tensor(), Tensor(), y, {});
    return y;
  });
}

// What backward reads.
struct Saved {
  bool centered;
  Tensor x, weight;
  Moments moments;
  // dx = before + the gradient of the norm; before may be empty, or dx.
  void backward(const Tensor& dy, const Tensor& before, const Tensor& dx) const {
    const bool in_place = before && before.data() == dx.data();
    const void* beside = in_place ? nullptr : before.data();
    const Write mode = in_place ? Write::accumulate : Write::overwrite;
    if (centered) {
      x.backend().layer_norm_backward({.dy = dy.data(),
                                       .x = x.data(),
                                       .w = weight.data(),
                                       .mean = moments.mean.data(),
                                       .rstd = moments.rstd.data(),
                                       .beside = beside,
                                       .dx = dx.data(),
                                       .rows = x.size() / weight.size(),
                                       .cols = weight.size(),
                                       .mode = mode,
                                       .type = x.type()});
      return;
    }
    x.backend().rms_norm_backward({.dy = dy.data(),
                                   .x = x.data(),
                                   .w = weight.data(),
                                   .rstd = moments.rstd.data(),
                                   .beside = beside,
                                   .dx = dx.data(),
                                   .rows = x.size() / weight.size(),
                                   .cols = weight.size(),
                                   .mode = mode,
                                   .type = x.type()});
  }
};

void check(const Context& c, const char* op, const Norm& n, const Var& x, int64_t heads = 1) {
  const int64_t cols = n.weight.size();
  check_operand(c, op, "x", x.value, -1, heads * cols);
  check_operand(c, op, "the weight", n.weight, cols, 1);
  if (n.bias) check_operand(c, op, "the bias", n.bias, cols, 1);
}

Var norm_of(Context& c, const char* op, const Norm& norm, const Var& x, int64_t heads = 1) {
  check(c, op, norm, x, heads);
  const bool record = c.tape != nullptr && x.needs_grad();
  Tensor y(c.memory, x.value.shape(), type_of(c, norm));
  Moments moments;
  if (record) moments = room_for_moments(c, norm, pieces(norm, x.value));
  normalize(norm, x.value, Tensor(), Tensor(), y, moments);
  if (!record) return {std::move(y)};
  Var out = c.tape->record(std::move(y), [saved = Saved{norm.centered, x.value, norm.weight, moments},
                                          slot = x.slot](Tape& tape, std::span<const Tensor> dys) {
    const Tape::Onto dx = tape.onto(slot);
    saved.backward(dys[0], dx.before, dx.sum);
  });
  if (c.checkpointing == Checkpointing::selective) out.again = again(x.value, norm, type_of(c, norm));
  return out;
}

NormOfSum norm_of_sum(Context& c, const char* op, const Norm& norm, const Var& x, const Var& y) {
  check(c, op, norm, x);
  check_operand(c, op, "y", y.value, x.value.rows(), x.value.cols());
  const bool record = c.tape != nullptr && (x.needs_grad() || y.needs_grad());
  Tensor sum(c.memory, x.value.shape(), c.type), result(c.memory, x.value.shape(), type_of(c, norm));
  Moments moments;
  if (record) moments = room_for_moments(c, norm, x.value.rows());
  normalize(norm, x.value, y.value, sum, result, moments);
  if (!record) return {{std::move(sum)}, {std::move(result)}};
  auto backward = [saved = Saved{norm.centered, sum, norm.weight, moments}, a = x.slot, b = y.slot](
                      Tape& tape, std::span<const Tensor> dys) {
    // Written to where the sum's own gradient lies, unless there is none or somebody else reads it.
    const bool in_place = dys[0] && !dys[0].shared();
    Tensor dsum = dys[0];
    if (dys[1]) {
      if (!in_place) dsum = Tensor(dys[1].memory(), dys[1].shape(), dys[1].type());
      saved.backward(dys[1], dys[0], dsum);
    }
    if (a >= 0) tape.add(a, dsum);
    if (b >= 0) tape.add(b, dsum);
  };
  std::vector<Var> out = c.tape->record({sum, std::move(result)}, std::move(backward));
  if (c.checkpointing == Checkpointing::selective) out[1].again = again(sum, norm, type_of(c, norm));
  return {std::move(out[0]), std::move(out[1])};
}

}  // namespace

Var rms_norm(Context& c, const Tensor& weight, const Var& x, double eps, Readers readers, int64_t heads) {
  return norm_of(c, "rms_norm", {false, weight, {}, eps, readers}, x, heads);
}

NormOfSum add_rms_norm(Context& c, const Tensor& weight, const Var& x, const Var& y, double eps,
                       Readers readers) {
  return norm_of_sum(c, "add_rms_norm", {false, weight, {}, eps, readers}, x, y);
}

Var layer_norm(Context& c, const LayerNormWeights& w, const Var& x, double eps, Readers readers) {
  return norm_of(c, "layer_norm", {true, w.weight, w.bias, eps, readers}, x);
}

NormOfSum add_layer_norm(Context& c, const LayerNormWeights& w, const Var& x, const Var& y, double eps,
                         Readers readers) {
  return norm_of_sum(c, "add_layer_norm", {true, w.weight, w.bias, eps, readers}, x, y);
}

}  // namespace qlora
