// cuBLAS's part of the emulation: its arguments as cuBLAS takes them (column-major, ops, leading dimensions,
// alpha and beta on the host), and what it asks for. Sums run over k in order, from zero, as those of the
// emulated tensor cores; or with QLORA_EMULATED_BLAS=by_rows, for tests, in an order that depends on how many
// rows there are, as cuBLAS's may: k in so many pieces as there are blocks of rows, whose sums are then
// added.

#include "kernels/cuda/emulated/blas_product.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/base/parallel.h"

namespace qlora::cuda {

// Work for the stream that a handle was given.
struct StreamOfBlas {
  static void enqueue(Stream& stream, std::function<void()> work) { stream.give(std::move(work)); }
};

namespace emulated_blas {
namespace {

constexpr int64_t kRowsAPiece = 48, kMostPieces = 8;

int64_t pieces_of(int64_t rows) {
  const char* order = std::getenv("QLORA_EMULATED_BLAS");
  if (order == nullptr || std::string_view(order) != "by_rows") return 1;
  return std::min(1 + rows / kRowsAPiece, kMostPieces);
}

// The transposed product, which is row-major: c[n, m] = alpha op(b)ᵀ op(a)ᵀ + beta c.
struct Run : Product {
  int64_t pieces = 1;

  float a_at(int64_t i, int64_t p) const { return to_float(a[a_transposed ? p + i * lda : i + p * lda]); }
  float b_at(int64_t p, int64_t j) const { return to_float(b[b_transposed ? j + p * ldb : p + j * ldb]); }

  void run() const {
    std::vector<float> of_a(static_cast<size_t>(m * k));  // [k, m]
    for (int64_t p = 0; p < k; ++p)
      for (int64_t i = 0; i < m; ++i) of_a[static_cast<size_t>(p * m + i)] = a_at(i, p);
    parallel_for(n, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> sums(static_cast<size_t>(m)), piece(sums);
      for (int64_t j = begin; j < end; ++j) {
        sum_over_k(of_a, j, 0, k / pieces, sums);
        for (int64_t of = 1; of < pieces; ++of) {
          sum_over_k(of_a, j, of * k / pieces, (of + 1) * k / pieces, piece);
          std::transform(sums.begin(), sums.end(), piece.begin(), sums.begin(), std::plus<>());
        }
        float* to = c + j * ldc;
        for (int64_t i = 0; i < m; ++i) {
          const float start = beta == 0 ? 0.0f : beta * to[i];  // what beta = 0 finds is not read
          to[i] = std::fma(alpha, sums[static_cast<size_t>(i)], start);
        }
      }
    });
  }

  // Of column j, over [from, to) of k.
  void sum_over_k(const std::vector<float>& of_a, int64_t j, int64_t from, int64_t to,
                  std::vector<float>& sums) const {
    sums.assign(sums.size(), 0.0f);
    for (int64_t p = from; p < to; ++p) {
      const float x = b_at(p, j);
      const float* w = of_a.data() + p * m;
      for (int64_t i = 0; i < m; ++i) sums[static_cast<size_t>(i)] += x * w[i];
    }
  }
};

}  // namespace

int check(const Product& p) {
  const auto least = [](int64_t side) { return std::max<int64_t>(side, 1); };
  if (p.m < 0 || p.n < 0 || p.k < 0) return kBlasInvalid;
  const bool fits = p.lda >= least(p.a_transposed ? p.k : p.m) &&
                    p.ldb >= least(p.b_transposed ? p.n : p.k) && p.ldc >= least(p.m);
  return fits ? 0 : kBlasInvalid;
}

void give(const Product& p, Stream* stream, void* workspace, size_t bytes) {
  if (stream == nullptr || workspace == nullptr)
    throw emulated::Fault("cuBLAS: a product without a stream or a workspace of ours");
  StreamOfBlas::enqueue(*stream, [=, run = Run{p, pieces_of(p.n)}] {
    std::memset(workspace, 0xa5, std::min<size_t>(bytes, 4096));  // it is cuBLAS's to write
    run.run();
  });
}

}  // namespace emulated_blas

namespace {

struct Handle {
  Stream* stream = nullptr;
  std::byte* workspace = nullptr;
  size_t bytes = 0;
};

int create(void** handle) {
  *handle = new Handle;
  return 0;
}

int destroy(void* handle) {
  delete static_cast<Handle*>(handle);
  return 0;
}

int set_stream(void* handle, void* stream) {
  *static_cast<Handle*>(handle) = {.stream = static_cast<Stream*>(stream)};  // cuBLAS forgets the workspace
  return 0;
}

int set_workspace(void* handle, void* workspace, size_t bytes) {
  auto& h = *static_cast<Handle*>(handle);
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return kBlasInvalid;
  h.workspace = static_cast<std::byte*>(workspace);
  h.bytes = bytes;
  return 0;
}

int gemm(void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, int type_a,
         int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc,
         int compute, int) {
  if ((op_a != kBlasAsIs && op_a != kBlasTransposed) || (op_b != kBlasAsIs && op_b != kBlasTransposed))
    return kBlasInvalid;
  emulated_blas::Product p{.a = static_cast<const bf16*>(a),
                           .b = static_cast<const bf16*>(b),
                           .c = static_cast<float*>(c),
                           .m = m,
                           .n = n,
                           .k = k,
                           .lda = lda,
                           .ldb = ldb,
                           .ldc = ldc,
                           .a_transposed = op_a == kBlasTransposed,
                           .b_transposed = op_b == kBlasTransposed};
  if (const int status = emulated_blas::check(p); status != 0) return status;
  if (type_a != kBlasBf16 || type_b != kBlasBf16 || type_c != kBlasF32 || compute != kBlasSumsInF32)
    return kBlasUnsupported;
  std::memcpy(&p.alpha, alpha, sizeof(float));
  std::memcpy(&p.beta, beta, sizeof(float));
  const Handle& h = *static_cast<Handle*>(handle);
  emulated_blas::give(p, h.stream, h.workspace, h.bytes);
  return 0;
}

}  // namespace

FoundBlas find_blas() {
  if (blas_is_off()) return find_blas_library();
  const BlasTable table{create, destroy, set_stream, set_workspace, gemm};
  return with_lt({.usable = true, .table = table, .text = "cuBLAS, emulated"}, emulated_blas::lt_table());
}

}  // namespace qlora::cuda
