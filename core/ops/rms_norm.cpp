#include <utility>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

// y and, unless they are empty, rstd and the sum of x and residual, whose norm y then is.
void normalize(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps, const Tensor& sum,
               const Tensor& y, const Tensor& rstd) {
  x.backend().rms_norm({.x = x.data(),
                        .residual = residual.data(),
                        .sum = sum.data(),
                        .w = weight.data(),
                        .y = y.data(),
                        .rstd = rstd.data(),
                        .rows = x.rows(),
                        .cols = x.cols(),
                        .eps = eps,
                        .type = x.type()});
}

// The norm of x, made again: x is kept for backward anyway.
std::shared_ptr<const std::function<Tensor()>> again(const Tensor& x, const Tensor& weight, double eps) {
  return std::make_shared<const std::function<Tensor()>>([x, weight, eps] {
    Tensor y(x.memory(), x.shape(), x.type());
    normalize(x, Tensor(), weight, eps, Tensor(), y, Tensor());
    return y;
  });
}

// What backward reads.
struct Saved {
  Tensor x, weight, rstd;
  // dx = before + the gradient of the norm; before may be empty, or dx.
  void backward(const Tensor& dy, const Tensor& before, const Tensor& dx) const {
    const bool in_place = before && before.data() == dx.data();
    x.backend().rms_norm_backward({.dy = dy.data(),
                                   .x = x.data(),
                                   .w = weight.data(),
                                   .rstd = rstd.data(),
                                   .beside = in_place ? nullptr : before.data(),
                                   .dx = dx.data(),
                                   .rows = x.rows(),
                                   .cols = x.cols(),
                                   .mode = in_place ? Write::accumulate : Write::overwrite,
                                   .type = x.type()});
  }
};

}  // namespace

Var rms_norm(Context& c, const Tensor& weight, const Var& x, double eps) {
  int64_t cols = weight.size();
  check_operand(c, "rms_norm", "x", x.value, -1, cols);
  check_operand(c, "rms_norm", "the weight", weight, cols, 1);
  const bool record = c.tape != nullptr && x.needs_grad();
  Tensor y(c.memory, x.value.shape(), c.type), rstd;
  if (record) rstd = Tensor(c.memory, {x.value.rows()}, c.type);
  normalize(x.value, Tensor(), weight, eps, Tensor(), y, rstd);
  if (!record) return {std::move(y)};
  Var out = c.tape->record(std::move(y), [saved = Saved{x.value, weight, rstd}, slot = x.slot](
                                             Tape& tape, std::span<const Tensor> dys) {
    const Tape::Onto dx = tape.onto(slot);
    saved.backward(dys[0], dx.before, dx.sum);
  });
  if (c.checkpointing == Checkpointing::selective) out.again = again(x.value, weight, eps);
  return out;
}

NormOfSum add_rms_norm(Context& c, const Tensor& weight, const Var& x, const Var& y, double eps) {
  int64_t cols = weight.size();
  check_operand(c, "add_rms_norm", "x", x.value, -1, cols);
  check_operand(c, "add_rms_norm", "y", y.value, x.value.rows(), cols);
  check_operand(c, "add_rms_norm", "the weight", weight, cols, 1);
  const bool record = c.tape != nullptr && (x.needs_grad() || y.needs_grad());
  Tensor sum(c.memory, x.value.shape(), c.type), norm(c.memory, x.value.shape(), c.type), rstd;
  if (record) rstd = Tensor(c.memory, {x.value.rows()}, c.type);
  normalize(x.value, y.value, weight, eps, sum, norm, rstd);
  if (!record) return {{std::move(sum)}, {std::move(norm)}};
  auto backward = [saved = Saved{sum, weight, rstd}, a = x.slot, b = y.slot](Tape& tape,
                                                                             std::span<const Tensor> dys) {
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
  std::vector<Var> out = c.tape->record({sum, std::move(norm)}, std::move(backward));
  if (c.checkpointing == Checkpointing::selective) out[1].again = again(sum, weight, eps);
  return {std::move(out[0]), std::move(out[1])};
}

}  // namespace qlora
