#pragma once
// Backend on a CUDA device, or on its emulation.

#include <memory>

#include "kernels/backend.h"

namespace qlora::cuda {

std::unique_ptr<Backend> make_backend(const DeviceOptions& = {});

}  // namespace qlora::cuda
