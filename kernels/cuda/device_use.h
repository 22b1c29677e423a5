#pragma once
// How a device was given its work, counted in this process since it began.

#include <cstdint>

namespace qlora {

// Products as they are given to the library: those of a graph that goes again as it was are not, and those
// that a graph is made of are, when it is made.
struct DeviceUse {
  uint64_t by_lt = 0;    // by cublasLt
  uint64_t by_gemm = 0;  // by cublasGemmEx: cublasLt is not there, or had no algorithm
  uint64_t asked = 0;    // times that cublasLt was asked for an algorithm
  uint64_t graphs = 0;   // launched
};

}  // namespace qlora
