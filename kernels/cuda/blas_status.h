#pragma once
// What cuBLAS and cublasLt return, as errors of the project.

#include <string>

#include "core/base/error.h"
#include "kernels/cuda/blas.h"

namespace qlora::cuda {

struct BlasLibrary {
  const char *name, *variable;
};
inline constexpr BlasLibrary kCublas = {"cuBLAS", "QLORA_CUBLAS"}, kCublasLt = {"cublasLt", "QLORA_CUBLASLT"};

// what(): text of what was called, made where it failed.
template <class What>
void check_blas(int status, const BlasLibrary& library, const What& what) {
  if (status == 0) return;
  throw Error(status == kBlasNoMemory ? ErrorKind::memory : ErrorKind::failure,
              std::string(library.name) + ": " + what() + ": status " + std::to_string(status) + " (" +
                  library.variable + "=off does without it)");
}

inline std::string describe(const BlasProduct& p) {
  return "a product of " + std::to_string(p.m) + " x " + std::to_string(p.n) + " x " + std::to_string(p.k);
}

}  // namespace qlora::cuda
