#pragma once
// cublasLt's functions in a table (blas_table.h), as cublasLt.h declares them from CUDA 11 on. All return 0
// or one of cuBLAS's statuses; descriptors are the library's, matrices column-major.

#include <cstddef>
#include <cstdint>

namespace qlora::cuda {

// How a product is computed: the library's, and copied by us.
struct LtAlgorithm {
  uint64_t data[8] = {};
};

// What the heuristic answers, the fastest first by its estimate.
struct LtAnswer {
  LtAlgorithm algorithm = {};
  size_t workspace = 0;  // bytes that it needs
  int state = 0;         // a status; 0: it can be used
  float waves = 0;
  int reserved[4] = {};
};

// Attributes, and what they are given.
inline constexpr int kLtOpA = 3, kLtOpB = 4;  // of a product, cublasLtMatmulDescAttributes_t: int32_t
// Of what is asked for, cublasLtMatmulPreferenceAttributes_t: bytes of workspace at most, uint64_t; what the
// addresses of matrices are multiples of, uint32_t.
inline constexpr int kLtWorkspace = 1, kLtAlignmentA = 5, kLtAlignmentB = 6, kLtAlignmentC = 7,
                     kLtAlignmentD = 8;

struct LtTable {
  int (*create)(void** handle) = nullptr;
  int (*destroy)(void* handle) = nullptr;
  int (*create_product)(void** product, int compute, int scale_type) = nullptr;
  int (*destroy_product)(void* product) = nullptr;
  int (*set_product)(void* product, int attribute, const void* value, size_t bytes) = nullptr;
  int (*create_layout)(void** layout, int type, uint64_t rows, uint64_t columns, int64_t pitch) = nullptr;
  int (*destroy_layout)(void* layout) = nullptr;
  int (*create_preference)(void** preference) = nullptr;
  int (*destroy_preference)(void* preference) = nullptr;
  int (*set_preference)(void* preference, int attribute, const void* value, size_t bytes) = nullptr;
  int (*heuristic)(void* handle, void* product, void* a, void* b, void* c, void* d, void* preference,
                   int asked, LtAnswer* answers, int* answered) = nullptr;
  // d = alpha op(a) op(b) + beta c; alpha and beta lie on the host.
  int (*multiply)(void* handle, void* product, const void* alpha, const void* a, void* layout_a,
                  const void* b, void* layout_b, const void* beta, const void* c, void* layout_c, void* d,
                  void* layout_d, const LtAlgorithm* algorithm, void* workspace, size_t bytes,
                  void* stream) = nullptr;
};

}  // namespace qlora::cuda
