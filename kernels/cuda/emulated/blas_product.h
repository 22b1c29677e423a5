#pragma once
// The product of the emulated cuBLAS and cublasLt, in one text for both (blas.cpp).

#include "kernels/cuda/blas.h"

namespace qlora::cuda::emulated_blas {

// c = alpha op(a) op(b) + beta c, column-major: op(a) is [m, k], c [m, n].
struct Product {
  const bf16 *a = nullptr, *b = nullptr;
  float* c = nullptr;
  int64_t m = 0, n = 0, k = 0, lda = 0, ldb = 0, ldc = 0;
  bool a_transposed = false, b_transposed = false;
  float alpha = 1, beta = 0;
};

// What is wrong with sides and leading dimensions, as a status.
int check(const Product&);
// As work of the stream, which may write what it likes into the workspace. Throws Fault where one of them is
// missing.
void give(const Product&, Stream*, void* workspace, size_t bytes);

// blas_lt.cpp
LtTable lt_table();

}  // namespace qlora::cuda::emulated_blas
