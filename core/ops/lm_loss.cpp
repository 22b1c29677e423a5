#include <algorithm>

#include "core/ops/operand.h"
#include "core/ops/ops.h"

namespace qlora {

namespace {

// Rows of logits that exist at a time: at most 64 MiB of them, but enough for an efficient product.
int64_t chunk_rows(int64_t vocab, DType type) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  return std::clamp<int64_t>(kBytes / (vocab * static_cast<int64_t>(size_of(type))), 16, 1024);
}

Exec exec_of(const Context& c) {
  return {c.backend, c.memory, c.type, nullptr, {}, c.numerics};
}

Tensor gather(const Context& c, const Tensor& x, std::span<const int32_t> ids) {
  Tensor y(c.memory, {static_cast<int64_t>(ids.size()), x.cols()}, c.type, Tag::scratch);
  c.backend.gather_rows({.table = x.data(),
                         .ids = ids.data(),
                         .y = y.data(),
                         .rows = y.rows(),
                         .cols = y.cols(),
                         .type = c.type});
  return y;
}

// Loss of some rows; their share of dhidden, where one is wanted.
void loss_of_chunk(const Context& c, const OutputHead& head, const Tensor& hidden,
                   std::span<const int32_t> ids, std::span<const int32_t> targets, const Tensor& loss,
                   const Tensor& dhidden) {
  Tensor x = gather(c, hidden, ids);
  Tensor logits(c.memory, {x.rows(), head.linear.out()}, c.type, Tag::scratch);
  head.linear.forward(exec_of(c), x, {}, logits);
  c.backend.cross_entropy({.logits = logits.data(),
                           .targets = targets.data(),
                           .loss = loss.data(),
                           .dlogits = dhidden ? logits.data() : nullptr,
                           .rows = x.rows(),
                           .vocab = head.linear.out(),
                           .type = c.type,
                           .softcap = head.softcap});
  if (!dhidden) return;
  head.linear.backward(exec_of(c), Tensor(), logits, {}, x,
                       Write::overwrite);  // x has been read: it takes its gradient
  c.backend.scatter_rows({.x = x.data(),
                          .ids = ids.data(),
                          .y = dhidden.data(),
                          .rows = x.rows(),
                          .cols = x.cols(),
                          .total = dhidden.rows(),
                          .mode = Write::accumulate,
                          .type = c.type});
}

}  // namespace

std::vector<double> lm_loss(Context& c, const OutputHead& head, const Var& hidden,
                            std::span<const int32_t> targets) {
  check_operand(c, "lm_loss", "hidden", hidden.value, static_cast<int64_t>(targets.size()), head.linear.in());
  std::vector<int32_t> ids, wanted;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] < 0) continue;
    QLORA_CHECK(targets[i] < head.linear.out(), failure, "lm_loss: target {} of row {} is outside 0..{}",
                targets[i], i, head.linear.out() - 1);
    ids.push_back(static_cast<int32_t>(i));
    wanted.push_back(targets[i]);
  }
  std::vector<double> losses(targets.size(), 0.0);
  if (ids.empty()) return losses;

  bool learn = c.tape != nullptr && hidden.needs_grad();
  auto labels = static_cast<int64_t>(ids.size());
  Tensor loss(c.memory, {labels}, c.type), dhidden;
  if (learn) dhidden = Tensor::zeros(c.memory, hidden.value.shape(), c.type);
  int64_t step = chunk_rows(head.linear.out(), c.type);
  for (int64_t lo = 0; lo < labels; lo += step) {
    int64_t n = std::min(step, labels - lo);
    auto at = static_cast<size_t>(lo), count = static_cast<size_t>(n);
    loss_of_chunk(c, head, hidden.value, std::span(ids).subspan(at, count),
                  std::span(wanted).subspan(at, count), loss.slice_rows(lo, lo + n), dhidden);
  }
  if (learn) c.tape->backward(hidden, std::move(dhidden));

  std::vector<double> values = loss.to_doubles();
  for (size_t i = 0; i < ids.size(); ++i) losses[static_cast<size_t>(ids[i])] = values[i];
  return losses;
}

Tensor logits_of(Context& c, const OutputHead& head, const Tensor& hidden, std::span<const int32_t> rows) {
  check_operand(c, "logits_of", "hidden", hidden, -1, head.linear.in());
  for (int32_t row : rows) {
    QLORA_CHECK(row >= 0 && row < hidden.rows(), failure, "logits_of: no row {} in {}", row,
                to_string(hidden.shape()));
  }
  Tensor logits(c.memory, {static_cast<int64_t>(rows.size()), head.linear.out()}, c.type);
  head.linear.forward(exec_of(c), gather(c, hidden, rows), {}, logits);
  if (head.softcap > 0)
    c.backend.softcap(
        {.x = logits.data(), .y = logits.data(), .n = logits.size(), .cap = head.softcap, .type = c.type});
  return logits;
}

}  // namespace qlora
