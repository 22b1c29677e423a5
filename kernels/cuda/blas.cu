// The handles of cuBLAS, for CUDA and for the emulation.

#include "kernels/cuda/blas.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>

#include "kernels/cuda/blas_status.h"
#include "kernels/cuda/lt.h"
#include "kernels/cuda/many_rows.h"
#include "kernels/cuda/use.h"

namespace qlora::cuda {
namespace {

template <class What>
void check(int status, const What& what) {
  check_blas(status, kCublas, what);
}

int as_int(int64_t n) {
  if (n > INT_MAX) throw Error(ErrorKind::failure, "cuBLAS: a matrix has a side of " + std::to_string(n));
  return static_cast<int>(n);
}

}  // namespace

Blas::Blas(const FoundBlas& found, Stream& stream) : table_(found.table), stream_(stream) {
  void* const workspace = workspace_.bytes(kBlasWorkspace);
  if (found.lt) lt_ = std::make_unique<Lt>(*found.lt, workspace, kBlasWorkspace);
  check(table_.create(&handle_), [] { return "no handle"; });
  try {
    check(table_.set_stream(handle_, stream.raw()), [] { return "setting the stream"; });
    check(table_.set_workspace(handle_, workspace, kBlasWorkspace), [] { return "setting the workspace"; });
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
  stream_.call(piece, numbers, [this, p] { give(p); });
}

void Blas::give(const BlasProduct& p) {
  if (lt_ != nullptr && lt_->product(p, stream_.raw())) {
    ++used().by_lt;
    return;
  }
  multiply(p);
  ++used().by_gemm;
}

// What is row-major here is its transpose there: yᵀ[n, m] = w xᵀ.
void Blas::multiply(const BlasProduct& p) {
  const float beta = p.adds ? 1.0f : 0.0f;
  check(table_.gemm(handle_, p.w_is_kn ? kBlasAsIs : kBlasTransposed, p.x_is_km ? kBlasTransposed : kBlasAsIs,
                    as_int(p.n), as_int(p.m), as_int(p.k), &p.alpha, p.w, kBlasBf16, as_int(p.w_pitch), p.x,
                    kBlasBf16, as_int(p.x_pitch), &beta, p.y, kBlasF32, as_int(p.y_pitch), kBlasSumsInF32,
                    kBlasItsChoice),
        [&] { return describe(p); });
}

}  // namespace qlora::cuda
