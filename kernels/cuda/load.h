#pragma once
// Finds the CUDA plug-in at run time: libqlora_cuda.so beside the program, or where QLORA_CUDA_PLUGIN says.

#include <memory>
#include <string>

#include "kernels/backend.h"

namespace qlora::cuda {

struct Found {
  bool usable = false;
  std::string text;  // the device, or in one line why there is none
};

// Looks once; later calls give the same answer.
const Found& find_device();
// Null where find_device() found none.
std::unique_ptr<Backend> make_from_plugin();

}  // namespace qlora::cuda
