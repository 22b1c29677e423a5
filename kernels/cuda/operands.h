#pragma once
// Operands of products by cuBLAS: values rounded to bf16, as blocks of larger matrices.

#include "kernels/args_matmul.h"
#include "kernels/cuda/device.h"

namespace qlora::cuda {

// Where a block goes: all of it is written, with zeros where its source ends before it. 16-byte aligned,
// columns and pitch in multiples of eight.
struct Block {
  bf16* to = nullptr;
  int64_t pitch = 0, rows = 0, columns = 0;
};

// A matrix of f32, or of bf16.
struct Matrix {
  const void* from = nullptr;
  DType type = DType::f32;
  int64_t pitch = 0, rows = 0, columns = 0;
};

// factor * the matrix (operands.cu)
void narrow(Device&, const Matrix&, const Block&, float factor = 1);
// What dropout leaves of it; a row of `keys`, on the device, for each of its rows.
void narrow(Device&, const Matrix&, const Block&, const Dropout&, const RowKey* keys);

// Rows and columns of a weight.
struct Piece {
  int64_t row = 0, column = 0, rows = 0, columns = 0;
};
// Decoded, whatever its format (codes.cu).
void decode(Device&, const WeightView&, const Piece&, const Block&);

}  // namespace qlora::cuda
