#pragma once
// Dropout on the device: kept or not at the coordinates of a token and a column, one draw of Philox for four
// columns (kernels/args_matmul.h).

#include "kernels/args_matmul.h"
#include "kernels/cuda/gpu.h"

namespace qlora::cuda {

struct Keep {
  Dropout dropout = {};
  float factor = 1;              // of narrow() without dropout
  const RowKey* keys = nullptr;  // of tokens, on the device

  // The numbers of columns [4 block, 4 block + 4).
  __device__ __forceinline__ Philox4 draw(int64_t token, int64_t block) const {
    const RowKey key = keys[token];
    return philox(dropout.key, static_cast<uint32_t>(block), key.position, key.example, dropout.step);
  }
  __device__ __forceinline__ float kept(float value, uint32_t bits) const {
    return uniform01(bits) >= dropout.p ? value : 0.0f;
  }
  __device__ __forceinline__ float apply(float value, int64_t token, int64_t column) const {
    return dropout.p > 0 ? kept(value, number(dropout, keys[token], static_cast<uint32_t>(column))) : value;
  }

 private:
  // Never inlined: of many elements at once the draws do not fit into registers. And without an index that is
  // not known, for which the four numbers would go through local memory.
  static __device__ __noinline__ uint32_t number(const Dropout& dropout, RowKey key, uint32_t column) {
    const Philox4 bits = philox(dropout.key, column / 4, key.position, key.example, dropout.step);
    const bool odd = column % 2 == 1;
    const uint32_t low = odd ? bits.v[1] : bits.v[0], high = odd ? bits.v[3] : bits.v[2];
    return column % 4 < 2 ? low : high;
  }
};

// What sums of kept elements are multiplied by.
inline float factor_of(const Dropout& dropout) {
  return static_cast<float>(1.0 / (1.0 - static_cast<double>(dropout.p)));
}
inline Keep keep_of(const Dropout& dropout, const RowKey* keys) {
  return {.dropout = dropout, .keys = keys};
}

}  // namespace qlora::cuda
