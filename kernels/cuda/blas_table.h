#pragma once
// cuBLAS, found when a program runs: functions in a table, so that neither the program nor the plug-in links
// it. The emulation brings a table of its own (emulated/blas.cpp) with the same meaning of every argument.

#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>

namespace qlora::cuda {

// As cublas_v2.h declares them, from cuBLAS 11 on. Matrices are column-major; `op` 0 takes them as they are
// and 1 transposed; types are 0 (f32) and 14 (bf16). All return 0 or a status.
struct BlasTable {
  int (*create)(void** handle) = nullptr;
  int (*destroy)(void* handle) = nullptr;
  int (*set_stream)(void* handle, void* stream) = nullptr;
  int (*set_workspace)(void* handle, void* workspace, size_t bytes) = nullptr;
  int (*gemm)(void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a,
              int type_a, int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c,
              int ldc, int compute, int algorithm) = nullptr;
};

struct FoundBlas {
  bool usable = false;
  BlasTable table = {};
  std::string text = {};  // which cuBLAS, or in one line why there is none
};

// The library's. QLORA_CUBLAS is `off`, the path of a library, or not set: then libcublas.so of 13, 12 or 11
// where the loader finds one, in the active Python environment (pip's nvidia-cublas), or in CUDA_HOME or
// /usr/local/cuda.
FoundBlas find_blas_library();
inline bool blas_is_off() {
  const char* chosen = std::getenv("QLORA_CUBLAS");
  return chosen != nullptr && std::string_view(chosen) == "off";
}

}  // namespace qlora::cuda
