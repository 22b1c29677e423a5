// f32 to bf16, eight neighbours in a row to a thread.

#include "kernels/cuda/operands.h"

#include <type_traits>

#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/ptx.h"

namespace qlora::cuda {
namespace {

constexpr int kThreads = 256, kEach = 8;

template <class T>
struct Rows {
  const T* from;
  int64_t pitch, rows, columns;
  bool in_pieces;  // of 16 bytes
};

template <class T>
__device__ __forceinline__ void load(float (&values)[kEach], const Rows<T>& x, int64_t row, int64_t column) {
  const T* p = x.from + row * x.pitch + column;
  if constexpr (std::is_same_v<T, float>) {
    if (x.in_pieces && row < x.rows && column + kEach <= x.columns) {
      const float4 low = reinterpret_cast<const float4*>(p)[0], high = reinterpret_cast<const float4*>(p)[1];
      values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
      values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
      return;
    }
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const bool inside = row < x.rows && column + i < x.columns;
    if constexpr (std::is_same_v<T, float>) {
      values[i] = inside ? p[i] : 0.0f;
    } else {
      values[i] = inside ? to_float(p[i]) : 0.0f;
    }
  }
}

template <class T, bool drops>
__global__ void __launch_bounds__(kThreads) narrow_rows(Rows<T> x, Block y, Keep how) {
  const int64_t pieces = y.columns / kEach;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= y.rows * pieces) return;
  const int64_t row = i / pieces, column = i % pieces * kEach;
  float v[kEach];
  load(v, x, row, column);
  if constexpr (drops) {
    if (row < x.rows) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Philox4 bits = how.draw(row, column / 4 + half);
#pragma unroll
        for (int j = 0; j < 4; ++j) v[4 * half + j] = how.kept(v[4 * half + j], bits.v[j]);
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < kEach; ++j) v[j] *= how.factor;
  }
  *reinterpret_cast<uint4*>(y.to + row * y.pitch + column) =
      uint4{round_pair(v[0], v[1]), round_pair(v[2], v[3]), round_pair(v[4], v[5]), round_pair(v[6], v[7])};
}

template <class T, bool drops>
void launch(Device& d, const Matrix& x, const Block& y, const Keep& how) {
  if (y.rows == 0 || y.columns == 0) return;
  const bool in_pieces = aligned(x.from, 16) && x.pitch % 4 == 0;
  d.stream.launch(narrow_rows<T, drops>, dim3(blocks_for(y.rows * (y.columns / kEach), kThreads)),
                  dim3(kThreads), 0,
                  Rows<T>{static_cast<const T*>(x.from), x.pitch, x.rows, x.columns, in_pieces}, y, how);
}

}  // namespace

void narrow(Device& d, const Matrix& x, const Block& y, float factor) {
  const Keep how{.factor = factor};
  if (x.type == DType::bf16) return launch<bf16, false>(d, x, y, how);
  launch<float, false>(d, x, y, how);
}

void narrow(Device& d, const Matrix& x, const Block& y, const Dropout& dropout, const RowKey* keys) {
  launch<float, true>(d, x, y, keep_of(dropout, keys));
}

}  // namespace qlora::cuda
