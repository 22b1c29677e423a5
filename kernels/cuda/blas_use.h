#pragma once
// How the products that went through cuBLAS went.

#include <cstdint>

namespace qlora {

struct BlasUse {
  uint64_t by_lt = 0;    // products by cublasLt
  uint64_t by_gemm = 0;  // by cublasGemmEx: cublasLt is not there, or had no algorithm
  uint64_t asked = 0;    // times that cublasLt was asked for an algorithm
};

}  // namespace qlora
