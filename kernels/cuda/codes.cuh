#pragma once
// Reading quantized weights on the device. A weight is f32(level * absmax), one product rounded once, as
// bitsandbytes computes it; the absmax may itself be double-quantized (kernels/args_matmul.h: WeightView).

#include "kernels/args_matmul.h"
#include "kernels/cuda/gpu.h"
#include "kernels/quant/tables.h"

namespace qlora::cuda {

// A quantized weight with the levels of its format: what a kernel takes by value.
struct Codes {
  const uint8_t* data = nullptr;
  const float* absmax = nullptr;  // null: double-quantized
  const uint8_t* absmax_codes = nullptr;
  const float* nested_absmax = nullptr;
  const float* code_map = nullptr;
  float nested_offset = 0;
  int64_t block = 64;
  int bits = 4;
  float levels[16] = {};  // of 4-bit codes

  __device__ __forceinline__ float level(int i) const { return levels[i]; }
};

// REQUIRES: a quantized format.
Codes codes_of(const WeightView& w);

__device__ __forceinline__ float absmax_of(const Codes& w, int64_t block) {
  if (w.absmax != nullptr) return w.absmax[block];
  const float scaled = __fmul_rn(w.code_map[w.absmax_codes[block]], w.nested_absmax[block / 256]);
  return __fadd_rn(scaled, w.nested_offset);
}

// The levels of a source of weights, to where an index that is not known costs nothing (shared memory). With
// such an index into its parameter, a kernel would keep a copy of that in local memory. Then __syncthreads.
template <class Source>
__device__ __forceinline__ void share_levels(float (&shared)[16], const Source& w) {
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int i = 0; i < 16; ++i) shared[i] = w.level(i);
}

// The level of an 8-bit code, in the lowest byte.
__device__ __forceinline__ float int8_level(uint32_t code) {
  const auto k = static_cast<float>(static_cast<int8_t>(code & 255));
  return fmaf(k, Int8::kStep, __fmul_rn(k, Int8::kStepRest));
}

// Element i of the flattened matrix. `levels`: those of `w`, where indexing is cheap (shared memory).
__device__ __forceinline__ float weight_at(const Codes& w, const float* levels, int64_t i) {
  if (w.bits == 8) return __fmul_rn(int8_level(w.data[i]), absmax_of(w, i / w.block));
  const int pair = w.data[i / 2];
  return __fmul_rn(levels[i % 2 == 0 ? pair >> 4 : pair & 15], absmax_of(w, i / w.block));
}

}  // namespace qlora::cuda
