// cuBLAS's part of the emulation: its arguments as cuBLAS takes them (column-major, ops, leading dimensions,
// alpha and beta on the host), and what it asks for. Sums run over k in order, from zero, as those of the
// emulated tensor cores; or with QLORA_EMULATED_BLAS=by_rows, for tests, in an order that depends on how many
// rows there are, as cuBLAS's may: k in so many pieces as there are blocks of rows, whose sums are then
// added.

#include "kernels/cuda/blas.h"

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

namespace {

constexpr int kInvalid = 7, kUnsupported = 15;
constexpr int kF32 = 0, kBf16 = 14, kSumsInF32 = 68;
constexpr int64_t kRowsAPiece = 48, kMostPieces = 8;

int64_t pieces_of(int64_t rows) {
  const char* order = std::getenv("QLORA_EMULATED_BLAS");
  if (order == nullptr || std::string_view(order) != "by_rows") return 1;
  return std::min(1 + rows / kRowsAPiece, kMostPieces);
}

struct Handle {
  Stream* stream = nullptr;
  std::byte* workspace = nullptr;
  size_t bytes = 0;
};

// The transposed product, which is row-major: c[n, m] = alpha op(b)ᵀ op(a)ᵀ + beta c.
struct Product {
  const bf16 *a, *b;
  float* c;
  int64_t m, n, k, lda, ldb, ldc;
  bool a_transposed, b_transposed;
  float alpha, beta;
  int64_t pieces;

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
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0) return kInvalid;
  h.workspace = static_cast<std::byte*>(workspace);
  h.bytes = bytes;
  return 0;
}

int gemm(void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, int type_a,
         int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc,
         int compute, int) {
  const auto least = [](int side) { return side > 1 ? side : 1; };
  if (m < 0 || n < 0 || k < 0 || (op_a != 0 && op_a != 1) || (op_b != 0 && op_b != 1)) return kInvalid;
  if (lda < least(op_a == 0 ? m : k) || ldb < least(op_b == 0 ? k : n) || ldc < least(m)) return kInvalid;
  if (type_a != kBf16 || type_b != kBf16 || type_c != kF32 || compute != kSumsInF32) return kUnsupported;
  const Handle h = *static_cast<Handle*>(handle);
  if (h.stream == nullptr || h.workspace == nullptr)
    throw emulated::Fault("cuBLAS: a product without a stream or a workspace of ours");
  Product p{static_cast<const bf16*>(a),
            static_cast<const bf16*>(b),
            static_cast<float*>(c),
            m,
            n,
            k,
            lda,
            ldb,
            ldc,
            op_a == 1,
            op_b == 1,
            0,
            0,
            pieces_of(n)};
  std::memcpy(&p.alpha, alpha, sizeof(float));
  std::memcpy(&p.beta, beta, sizeof(float));
  StreamOfBlas::enqueue(*h.stream, [h, p] {
    std::memset(h.workspace, 0xa5, std::min<size_t>(h.bytes, 4096));  // it is cuBLAS's to write
    p.run();
  });
  return 0;
}

}  // namespace

FoundBlas find_blas() {
  if (blas_is_off()) return find_blas_library();
  return {true, {create, destroy, set_stream, set_workspace, gemm}, "cuBLAS, emulated"};
}

}  // namespace qlora::cuda
