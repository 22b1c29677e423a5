#pragma once
// One token axis and the tables that cut it. Tokens of all runs of a pack lie one after another, never
// padded.
//   sequences matter only to attention, adapter spans only to linear layers, runs only to the loss.

#include <cstdint>
#include <vector>

#include "core/ops/adapter.h"
#include "kernels/backend.h"

namespace qlora {

// The rows of one run (or of one request's adapter). Adapter null: the base model alone.
struct AdapterSpan {
  int64_t lo = 0, hi = 0;
  Adapter* adapter = nullptr;
  uint64_t seed = 0;  // of the run: dropout
  uint32_t step = 0;  // optimizer step of the run: dropout
};

struct Axis {
  std::vector<int32_t> tokens;     // [rows]
  std::vector<int32_t> positions;  // [rows], from 0 in each sequence (more when a cache precedes)
  std::vector<RowKey> keys;        // [rows]
  std::vector<int32_t> cu;         // sequence i is rows [cu[i], cu[i+1]); cu[0] = 0
  std::vector<AdapterSpan> spans;  // ordered, disjoint, covering all rows; sequences nest in spans
  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
  int64_t sequences() const { return cu.empty() ? 0 : static_cast<int64_t>(cu.size()) - 1; }
  // Throws Error(failure) naming the first broken rule. `vocab` checks the tokens.
  void validate(int64_t vocab) const;
};

// Rows of an axis that are wanted of a model, and the axis of them alone. Sequences keep their numbers (one
// may be empty) and adapters their rows; positions may have gaps, so attention does not take it.
struct WantedRows {
  std::vector<int32_t> ids;  // ascending
  Axis axis;
};
WantedRows wanted_rows(const Axis&, std::vector<int32_t> ids);

// Which rows of the axis belong to which run of a pack, and how many of them are labels.
struct RunRows {
  int64_t lo = 0, hi = 0;
  int64_t labels = 0;
};

struct Batch {
  Axis axis;
  std::vector<int32_t> targets;  // [rows]: the token that row should predict, -100 = not a label
  std::vector<RunRows> runs;     // one per span, same order
};

}  // namespace qlora
