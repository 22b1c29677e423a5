#pragma once
// Errors of CUDA as errors of the project. CUDA only.

#include <cuda_runtime.h>

#include <string>

#include "core/base/error.h"

namespace qlora::cuda {

inline void check(cudaError_t status, const char* what, ErrorKind kind = ErrorKind::failure) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // what is reported here is not the next call's
  throw Error(kind, std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

}  // namespace qlora::cuda
