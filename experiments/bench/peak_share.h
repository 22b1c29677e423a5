#pragma once
// Rows of products held to what the machine can multiply.

#include <vector>

#include "experiments/bench/row.h"
#include "kernels/cpu/peaks.h"

namespace qlora::bench {

// The row, in GFLOP/s, with its share of the peak that goals are stated for: that of bf16 multiply-adds
// (vdpbf16ps, or two of f32 where they are faster), whatever makes these products. Of bf16_amx a second row
// follows, NAME/of_tiles: the share of the tiles' own peak, with no goal, for no goal was set where there are
// tiles.
std::vector<Row> shares_of_peak(Row, const Peaks&, Operands, double goal);

}  // namespace qlora::bench
