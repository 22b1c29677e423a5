#include "core/models/batch_loss.h"

#include "core/ops/ops.h"

namespace qlora {

std::vector<int32_t> rows_for_loss(const Batch& batch) {
  std::vector<int32_t> rows;
  for (size_t s = 0; s + 1 < batch.axis.cu.size(); ++s) {
    const int32_t lo = batch.axis.cu[s], hi = batch.axis.cu[s + 1];
    auto labelled = [&](int32_t row) { return batch.targets[static_cast<size_t>(row)] >= 0; };
    int64_t labels = 0;
    for (int32_t row = lo; row < hi; ++row) labels += labelled(row) ? 1 : 0;
    const bool whole = 4 * labels > 3 * int64_t{hi - lo};
    for (int32_t row = lo; row < hi; ++row)
      if (whole || labelled(row)) rows.push_back(row);
  }
  return rows;
}

std::vector<double> batch_losses(const Context& outer, const Model& model, const Batch& batch) {
  Context c = outer;
  const WantedRows wanted = wanted_rows(batch.axis, rows_for_loss(batch));
  const int64_t few = wanted.axis.rows();
  if (few == 0 || few == batch.axis.rows()) return lm_loss(c, model.output(), model.hidden(c), batch.targets);
  c.wanted = &wanted;
  std::vector<int32_t> targets;
  for (int32_t row : wanted.ids) targets.push_back(batch.targets[static_cast<size_t>(row)]);
  const std::vector<double> of_wanted = lm_loss(c, model.output(), model.hidden(c), targets);
  std::vector<double> losses(batch.targets.size(), 0.0);
  for (size_t i = 0; i < wanted.ids.size(); ++i) losses[static_cast<size_t>(wanted.ids[i])] = of_wanted[i];
  return losses;
}

}  // namespace qlora
