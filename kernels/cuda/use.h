#pragma once
// What device_use.h counts, where it is counted.

#include <atomic>

#include "kernels/cuda/device_use.h"

namespace qlora::cuda {

struct Used {
  std::atomic<uint64_t> by_lt, by_gemm, asked, graphs;
};
Used& used();
DeviceUse device_use();

}  // namespace qlora::cuda
