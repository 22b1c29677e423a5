#pragma once
// The linear layer with its adapters over a table of kernels, in f32. Products of all adapters of all terms
// run together, and an adapter's delta goes into the tiles of y or dx as they are finished. Results have the
// bits of the plain composition (reference/linear.cpp) over the same products.

#include "kernels/cpu/kernels.h"

namespace qlora::cpu {

// The product of x [rows, in or out] with a weight, as GemmArgs. Refers to w and codes.
GemmArgs product_with(Layout, const float* x, const WeightView& w, Codes& codes, float* y, int64_t rows,
                      bool add);
Codes codes_of(const WeightView& w);  // refers to w

// Whether linear() below is for such a call: products of few rows, and those of the decode class, take other
// kernels.
bool fuses(const Linear&);
void linear(const Kernels&, const Linear&);

// dx, where it is wanted, is overwritten.
void linear_backward(const Kernels&, const LinearBackward&, float* dx);

}  // namespace qlora::cpu
