#pragma once
// Laying examples on the token axis, and taking losses off it again. See also collate() in pack.h.

#include <span>
#include <vector>

#include "core/train/pack.h"

namespace qlora {

// Adds one sequence; `index` is its place in its run's effective batch.
void append_example(Batch&, const TokenExample&, uint32_t index);

// Adds the examples of one adapter as a span; `span` gives the adapter and its random stream, the rows are
// filled in.
void append_span(Batch&, std::span<const TokenExample>, int64_t first, AdapterSpan span);

// The summed loss of every sequence inside `rows`, in order. `losses` has one value per row of the axis.
std::vector<double> example_losses(const Batch&, const RunRows& rows, std::span<const double> losses);

}  // namespace qlora
