#pragma once
// Many small products in one launch: the adapters of a linear layer, with their dropout.

#include <vector>

#include "kernels/args_matmul.h"
#include "kernels/cuda/device.h"

namespace qlora::cuda {

// Which matrix dropout is applied to: none, an operand as it is read, or the results before they are added.
enum class Drops : uint8_t { nothing, x, w, y };

// y[m, n] = alpha * x w in one of the three layouts, or added to y, rows of y being n long; or y + (alpha *
// x) w, in sums that begin at y (with Drops::y: where nothing drops; alpha is 1 unless both layout and drops
// are the simplest). Several ranges of k: each is summed from zero and added, one after the other (gradients:
// a range a sequence).
struct SmallProduct {
  const float *x = nullptr, *w = nullptr;
  float* y = nullptr;
  int64_t m = 0, n = 0;
  std::vector<std::pair<int64_t, int64_t>> ranges = {};  // of k: [begin, end), in tokens for Layout::tn
  float alpha = 1;
  Sums sums = Sums::overwrite;
  Dropout dropout = {};
  const RowKey* keys = nullptr;  // on the device, of the rows that stand for tokens; needed with dropout
};

// No two write the same element. Call Uploads::begin() before.
void small_products(Device&, Layout, Drops, Operands, const std::vector<SmallProduct>&);

}  // namespace qlora::cuda
