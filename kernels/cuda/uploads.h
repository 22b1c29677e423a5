#pragma once
// What a call uploads, element by element: for the plan (kernels/device_scratch.h). Where one of these
// structs is defined, the kernels hold its size to what stands here.

#include <cstddef>
#include <cstdint>

namespace qlora::cuda {

inline constexpr size_t kUploadAlignment = 256, kFirstUploads = size_t{64} << 10;  // device.cu
inline constexpr size_t kSmallProductBytes = 160, kRangeBytes = 16;                // groups.cu
inline constexpr size_t kSequenceBytes = 64;                                       // sequences.cuh
inline constexpr size_t kFlashWorkBytes = 16;                                      // flash.cuh
inline constexpr int kFewestFlashRows = 16;  // of a block of attention on tensor cores
inline constexpr size_t kStretchBytes = 16;  // learning.cu
inline constexpr int64_t kStretch = 4096;    // elements of a tensor in one partial sum, and in one block of
                                             // the optimizer

}  // namespace qlora::cuda
