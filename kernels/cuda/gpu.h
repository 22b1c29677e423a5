#pragma once
// What a kernel file includes. nvcc compiles it to CUDA, g++ to the emulation (emulated/grid.h): the same
// text. Rules for kernels, which the emulation keeps or the compiler does:
//   - launched through Stream::launch (runtime.h), never <<<>>>; whole warps; at most 99 KiB of shared
//   memory;
//   - shared memory is a struct, reached through shared_as<T>(); no __shared__ variables;
//   - warp operations name the whole warp; PTX stands in ptx.h alone;
//   - no atomics, which emulated/words.h does not have: every sum has one order;
//   - a product whose rounding matters is written fmaf, or __fmul_rn and __fadd_rn; nvcc fuses others.

#include <cstddef>
#include <cstdint>

#include "core/base/half.h"
#include "core/base/philox.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "kernels/cuda/emulated/words.h"
#endif

namespace qlora::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// The block's shared memory as a T; the launch gave sizeof(T) bytes.
template <class T>
__device__ __forceinline__ T& shared_as() {
#if defined(__CUDACC__)
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  return *reinterpret_cast<T*>(shared_bytes);
#else
  if (sizeof(T) > emulated::shared_bytes())
    throw emulated::Fault("shared_as: " + std::to_string(sizeof(T)) +
                          " bytes of shared memory, but the launch gave " +
                          std::to_string(emulated::shared_bytes()));
  return *reinterpret_cast<T*>(emulated::shared_memory());
#endif
}

// The sum, or the largest, of the 32 lanes' values, to every lane; pairs of lanes 16 apart first.
__device__ __forceinline__ float warp_sum(float value) {
  for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(kAllLanes, value, apart);
  return value;
}
__device__ __forceinline__ double warp_sum(double value) {
  for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(kAllLanes, value, apart);
  return value;
}
__device__ __forceinline__ uint64_t warp_sum(uint64_t value) {
  for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(kAllLanes, value, apart);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
  for (int apart = 16; apart > 0; apart /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, apart));
  return value;
}

}  // namespace qlora::cuda
