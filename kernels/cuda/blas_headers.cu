// Holds the tables of cuBLAS and cublasLt (blas_table.h, lt_table.h) against the headers of the toolkit that
// builds the plug-in, where it has them. Makes no code.

#include "kernels/cuda/blas_table.h"

#if __has_include(<cublasLt.h>) && __has_include(<cublas_v2.h>)

#include <cublasLt.h>
#include <cublas_v2.h>

#include <type_traits>

namespace qlora::cuda {
namespace {

// Enumerations are passed as int, descriptors and handles as void*.
template <class Ours, class Theirs>
constexpr bool kPassedAlike =
    sizeof(Ours) == sizeof(Theirs) && std::is_pointer_v<Ours> ==
                                          std::is_pointer_v<Theirs>&& std::is_floating_point_v<Ours> ==
                                          std::is_floating_point_v<Theirs>;

template <class Ours, class Theirs>
struct SameCall : std::false_type {};
template <class R, class... P, class S, class... Q>
requires(sizeof...(P) == sizeof...(Q)) struct SameCall<R (*)(P...), S (*)(Q...)>
    : std::bool_constant<kPassedAlike<R, S> && (kPassedAlike<P, Q> && ...)> {
};

#define QLORA_SAME_CALL(ours, theirs) \
  static_assert(SameCall<decltype(ours), decltype(&theirs)>::value, #ours " is not called as " #theirs)

QLORA_SAME_CALL(BlasTable::create, cublasCreate_v2);
QLORA_SAME_CALL(BlasTable::destroy, cublasDestroy_v2);
QLORA_SAME_CALL(BlasTable::set_stream, cublasSetStream_v2);
QLORA_SAME_CALL(BlasTable::set_workspace, cublasSetWorkspace_v2);
// Its name has another meaning in C++ too, of cuBLAS 10.
using GemmEx = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                                  const void*, const void*, cudaDataType, int, const void*, cudaDataType, int,
                                  const void*, void*, cudaDataType, int, cublasComputeType_t,
                                  cublasGemmAlgo_t);
static_assert(SameCall<decltype(BlasTable::gemm), decltype(static_cast<GemmEx>(&cublasGemmEx))>::value);

QLORA_SAME_CALL(LtTable::create, cublasLtCreate);
QLORA_SAME_CALL(LtTable::destroy, cublasLtDestroy);
QLORA_SAME_CALL(LtTable::create_product, cublasLtMatmulDescCreate);
QLORA_SAME_CALL(LtTable::destroy_product, cublasLtMatmulDescDestroy);
QLORA_SAME_CALL(LtTable::set_product, cublasLtMatmulDescSetAttribute);
QLORA_SAME_CALL(LtTable::create_layout, cublasLtMatrixLayoutCreate);
QLORA_SAME_CALL(LtTable::destroy_layout, cublasLtMatrixLayoutDestroy);
QLORA_SAME_CALL(LtTable::create_preference, cublasLtMatmulPreferenceCreate);
QLORA_SAME_CALL(LtTable::destroy_preference, cublasLtMatmulPreferenceDestroy);
QLORA_SAME_CALL(LtTable::set_preference, cublasLtMatmulPreferenceSetAttribute);
QLORA_SAME_CALL(LtTable::heuristic, cublasLtMatmulAlgoGetHeuristic);
QLORA_SAME_CALL(LtTable::multiply, cublasLtMatmul);

static_assert(sizeof(LtAlgorithm) == sizeof(cublasLtMatmulAlgo_t));
using TheirAnswer = cublasLtMatmulHeuristicResult_t;
static_assert(sizeof(LtAnswer) == sizeof(TheirAnswer) && alignof(LtAnswer) == alignof(TheirAnswer));
static_assert(offsetof(LtAnswer, algorithm) == offsetof(TheirAnswer, algo));
static_assert(offsetof(LtAnswer, workspace) == offsetof(TheirAnswer, workspaceSize));
static_assert(offsetof(LtAnswer, state) == offsetof(TheirAnswer, state));
static_assert(offsetof(LtAnswer, waves) == offsetof(TheirAnswer, wavesCount));

static_assert(kBlasAsIs == CUBLAS_OP_N && kBlasTransposed == CUBLAS_OP_T);
static_assert(kBlasF32 == CUDA_R_32F && kBlasBf16 == CUDA_R_16BF);
static_assert(kBlasSumsInF32 == CUBLAS_COMPUTE_32F && kBlasItsChoice == CUBLAS_GEMM_DEFAULT);
static_assert(kBlasNoMemory == CUBLAS_STATUS_ALLOC_FAILED && kBlasInvalid == CUBLAS_STATUS_INVALID_VALUE);
static_assert(kBlasUnsupported == CUBLAS_STATUS_NOT_SUPPORTED && CUBLAS_STATUS_SUCCESS == 0);
static_assert(kLtOpA == CUBLASLT_MATMUL_DESC_TRANSA && kLtOpB == CUBLASLT_MATMUL_DESC_TRANSB);
static_assert(kLtWorkspace == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(kLtAlignmentA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
static_assert(kLtAlignmentB == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
static_assert(kLtAlignmentC == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
static_assert(kLtAlignmentD == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);

}  // namespace
}  // namespace qlora::cuda

#endif
