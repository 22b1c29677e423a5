#pragma once
// Sums over the threads of a block.

#include "kernels/cuda/gpu.h"

namespace qlora::cuda {

inline constexpr int kMostWarps = 32;
struct BlockSums {
  double sums[kMostWarps];
};

// The sum of the values of all threads, to every thread; warps are added in order. `partials` is in shared
// memory, one a warp, and free again when this returns.
template <class T>
__device__ T block_sum(T value, T* partials) {
  const unsigned warps = blockDim.x / 32;
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) partials[threadIdx.x / 32] = value;
  __syncthreads();
  T total = 0;
  for (unsigned warp = 0; warp < warps; ++warp) total += partials[warp];
  __syncthreads();
  return total;
}

// The largest of them.
__device__ inline float block_max(float value, float* partials) {
  const unsigned warps = blockDim.x / 32;
  value = warp_max(value);
  if (threadIdx.x % 32 == 0) partials[threadIdx.x / 32] = value;
  __syncthreads();
  float largest = partials[0];
  for (unsigned warp = 1; warp < warps; ++warp) largest = fmaxf(largest, partials[warp]);
  __syncthreads();
  return largest;
}

// The smallest.
__device__ inline int block_min(int value, int* partials) {
  const unsigned warps = blockDim.x / 32;
  for (int apart = 16; apart > 0; apart /= 2) value = min(value, __shfl_xor_sync(kAllLanes, value, apart));
  if (threadIdx.x % 32 == 0) partials[threadIdx.x / 32] = value;
  __syncthreads();
  int least = partials[0];
  for (unsigned warp = 1; warp < warps; ++warp) least = min(least, partials[warp]);
  __syncthreads();
  return least;
}

}  // namespace qlora::cuda
