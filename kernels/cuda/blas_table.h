#pragma once
// cuBLAS and its cublasLt, found when a program runs: functions in tables, so that neither the program nor
// the plug-in links them. The emulation brings tables of its own (emulated/blas.cpp, emulated/blas_lt.cpp)
// with the same meaning of every argument.

#include <cstddef>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/cuda/lt_table.h"

namespace qlora::cuda {

// Values of cuBLAS's enumerations; blas_headers.cu holds them, and the tables, against a toolkit's headers.
inline constexpr int kBlasAsIs = 0, kBlasTransposed = 1;                          // cublasOperation_t
inline constexpr int kBlasF32 = 0, kBlasBf16 = 14;                                // cudaDataType_t
inline constexpr int kBlasSumsInF32 = 68;                                         // cublasComputeType_t
inline constexpr int kBlasItsChoice = -1;                                         // cublasGemmAlgo_t
inline constexpr int kBlasNoMemory = 3, kBlasInvalid = 7, kBlasUnsupported = 15;  // cublasStatus_t

// As cublas_v2.h declares them, from cuBLAS 11 on. Matrices are column-major. All return 0 or a status.
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
  std::optional<LtTable> lt = {};
  std::string text = {};  // which cuBLAS and cublasLt, or in one line why there is none
};

// The library's. QLORA_CUBLAS is `off`, the path of a library, or not set: then libcublas.so of 13, 12 or 11
// where the loader finds one, in the active Python environment (pip's nvidia-cublas), or in CUDA_HOME or
// /usr/local/cuda. Its cublasLt is the one beside it, or the one of the same version that the loader finds;
// with QLORA_CUBLASLT=off none.
FoundBlas find_blas_library();

inline bool is_off(const char* variable) {
  const char* chosen = std::getenv(variable);
  return chosen != nullptr && std::string_view(chosen) == "off";
}
inline bool blas_is_off() {
  return is_off("QLORA_CUBLAS");
}
inline FoundBlas without_lt(FoundBlas found, const std::string& why) {
  found.lt.reset();
  found.text += ", without cublasLt (" + why + ")";
  return found;
}
inline FoundBlas with_lt(FoundBlas found, const LtTable& table) {
  if (is_off("QLORA_CUBLASLT")) return without_lt(std::move(found), "QLORA_CUBLASLT=off");
  found.lt = table;
  found.text += " with cublasLt";
  return found;
}

}  // namespace qlora::cuda
