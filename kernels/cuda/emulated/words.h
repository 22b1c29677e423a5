#pragma once
// The words of CUDA C++ that the kernels use, for g++. A word that is missing here does not compile: the
// kernels keep to what the emulation checks. __shared__ is missing on purpose (gpu.h: shared_as).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/emulated/grid.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define threadIdx (::qlora::emulated::self().thread)
#define blockIdx (::qlora::emulated::self().block)
#define blockDim (::qlora::emulated::self().block_size)
#define gridDim (::qlora::emulated::self().grid_size)

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

namespace qlora::emulated {

template <class T>
struct Exchange {
  T given, got;
  int source;
};

// Every lane gets what the lane `source` gave.
template <class T>
T exchange(const char* name, unsigned mask, T value, int source, Place place) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  if (mask != 0xffffffffu) fault(std::string(name) + ": the mask is not the whole warp", place);
  Exchange<T> mine{value, value, source};
  warp_operation(
      name, &mine,
      [](void* const* all) {
        for (int i = 0; i < kWarp; ++i) {
          auto* lane = static_cast<Exchange<T>*>(all[i]);
          lane->got = static_cast<Exchange<T>*>(all[lane->source])->given;
        }
      },
      place);
  return mine.got;
}

inline void check_width(int width, Place place) {
  if (width != 2 && width != 4 && width != 8 && width != 16 && width != 32)
    fault("a shuffle's width is " + std::to_string(width) + "; it may be 2, 4, 8, 16 or 32", place);
}

}  // namespace qlora::emulated

inline void __syncthreads(std::source_location place = std::source_location::current()) {
  qlora::emulated::block_barrier(place);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              std::source_location place = std::source_location::current()) {
  qlora::emulated::check_width(width, place);
  const int lane = qlora::emulated::self().lane;
  return qlora::emulated::exchange("__shfl_sync", mask, value, (lane & ~(width - 1)) | (source & (width - 1)),
                                   place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32,
                  std::source_location place = std::source_location::current()) {
  qlora::emulated::check_width(width, place);
  const int lane = qlora::emulated::self().lane, other = lane ^ flip;
  const bool inside = other < (lane | (width - 1)) + 1;
  return qlora::emulated::exchange("__shfl_xor_sync", mask, value, inside ? other : lane, place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32,
                 std::source_location place = std::source_location::current()) {
  qlora::emulated::check_width(width, place);
  const int lane = qlora::emulated::self().lane, other = lane - static_cast<int>(by);
  return qlora::emulated::exchange("__shfl_up_sync", mask, value,
                                   other < (lane & ~(width - 1)) ? lane : other, place);
}
inline unsigned __ballot_sync(unsigned mask, bool vote,
                              std::source_location place = std::source_location::current()) {
  struct Vote {
    bool given;
    unsigned got;
  } mine{vote, 0};
  if (mask != 0xffffffffu) qlora::emulated::fault("__ballot_sync: the mask is not the whole warp", place);
  qlora::emulated::warp_operation(
      "__ballot_sync", &mine,
      [](void* const* all) {
        unsigned votes = 0;
        for (int i = 0; i < qlora::emulated::kWarp; ++i)
          votes |= static_cast<unsigned>(static_cast<Vote*>(all[i])->given) << i;
        for (int i = 0; i < qlora::emulated::kWarp; ++i) static_cast<Vote*>(all[i])->got = votes;
      },
      place);
  return mine.got;
}

using std::max;
using std::min;
template <class T>
T __ldg(const T* p) {
  return *p;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
