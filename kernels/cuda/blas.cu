// The handle of cuBLAS, for CUDA and for the emulation.

#include "kernels/cuda/blas.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <string>

#include "core/base/error.h"
#include "kernels/cuda/many_rows.h"

namespace qlora::cuda {
namespace {

constexpr int kAsIs = 0, kTransposed = 1;
constexpr int kF32 = 0, kBf16 = 14;              // cudaDataType_t
constexpr int kSumsInF32 = 68, kItsChoice = -1;  // CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT

void check(int status, const std::string& what) {
  constexpr int kNoMemory = 3;
  if (status == 0) return;
  throw Error(
      status == kNoMemory ? ErrorKind::memory : ErrorKind::failure,
      "cuBLAS: " + what + ": status " + std::to_string(status) + " (QLORA_CUBLAS=off does without it)");
}

int as_int(int64_t n) {
  if (n > INT_MAX) throw Error(ErrorKind::failure, "cuBLAS: a matrix has a side of " + std::to_string(n));
  return static_cast<int>(n);
}

}  // namespace

Blas::Blas(const FoundBlas& found, Stream& stream) : table_(found.table), stream_(stream) {
  check(table_.create(&handle_), "no handle");
  try {
    check(table_.set_stream(handle_, stream.raw()), "setting the stream");
    check(table_.set_workspace(handle_, workspace_.bytes(kBlasWorkspace), kBlasWorkspace),
          "setting the workspace");
  } catch (...) {
    table_.destroy(handle_);
    throw;
  }
}

Blas::~Blas() {
  try {
    stream_.break_off();
  } catch (const Error&) {  // whoever waits next is told
  }
  table_.destroy(handle_);
}

void Blas::product(const BlasProduct& p) {
  static const char kProducts = 0;
  const auto number = [](auto value) {
    int64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
  };
  const std::array<int64_t, 9> sizes = {p.m,       p.n,       p.k,       p.x_pitch, p.w_pitch,
                                        p.y_pitch, p.x_is_km, p.w_is_kn, p.adds};
  std::array<int64_t, sizes.size() + 4> numbers = {number(p.x), number(p.w), number(p.y), number(p.alpha)};
  std::copy(sizes.begin(), sizes.end(), numbers.begin() + 4);
  const WorkPiece piece{WorkKind::library, &kProducts, shape_of(sizes)};
  stream_.call(piece, numbers, [this, p] { multiply(p); });
}

// What is row-major here is its transpose there: yᵀ[n, m] = w xᵀ.
void Blas::multiply(const BlasProduct& p) {
  const float beta = p.adds ? 1.0f : 0.0f;
  check(table_.gemm(handle_, p.w_is_kn ? kAsIs : kTransposed, p.x_is_km ? kTransposed : kAsIs, as_int(p.n),
                    as_int(p.m), as_int(p.k), &p.alpha, p.w, kBf16, as_int(p.w_pitch), p.x, kBf16,
                    as_int(p.x_pitch), &beta, p.y, kF32, as_int(p.y_pitch), kSumsInF32, kItsChoice),
        "a product of " + std::to_string(p.m) + " x " + std::to_string(p.n) + " x " + std::to_string(p.k));
}

}  // namespace qlora::cuda
