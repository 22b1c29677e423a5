#pragma once
// Where the elements of products come from.

#include "kernels/cuda/codes.cuh"

namespace qlora::cuda {

// A matrix [rows, k] of a product, read element by element as f32. `along_k`: neighbours in k are neighbours
// in memory (so threads should read along it); else neighbours in rows are. `computed`: an element costs far
// more than to read it.
template <class T, bool along_k_>
struct Dense {
  static constexpr bool along_k = along_k_, computed = false;
  const T* p;
  int64_t pitch;
  __device__ __forceinline__ float at(const float*, int64_t row, int64_t k) const {
    const T value = along_k ? p[row * pitch + k] : p[k * pitch + row];
    if constexpr (sizeof(T) == sizeof(float)) {
      return value;
    } else {
      return to_float(value);
    }
  }
  __device__ __forceinline__ float level(int) const { return 0; }
};

template <bool along_k_>
struct Coded {
  static constexpr bool along_k = along_k_, computed = false;
  Codes w;
  int64_t pitch;
  __device__ __forceinline__ float at(const float* levels, int64_t row, int64_t k) const {
    return weight_at(w, levels, along_k ? row * pitch + k : k * pitch + row);
  }
  __device__ __forceinline__ float level(int i) const { return w.level(i); }
};

}  // namespace qlora::cuda
