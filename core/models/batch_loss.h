#pragma once
// The loss of a batch, from its tokens to its gradients: a model, and its head over the rows that have
// labels. Behind its attention, the last block computes those rows alone.

#include <vector>

#include "core/models/model.h"
#include "core/ops/axis.h"

namespace qlora {

// The rows whose hidden states the loss asks for: of a sequence those with labels, or all of them where that
// saves less than a quarter. Decided by each sequence alone, so that no gradient's sums depend on the pack.
std::vector<int32_t> rows_for_loss(const Batch&);

// The loss of every row of the batch, 0 where it has no label; with a tape, the gradients of their sum.
std::vector<double> batch_losses(const Context&, const Model&, const Batch&);

}  // namespace qlora
