#pragma once
// Finds the CUDA plug-in at run time: libqlora_cuda.so beside the program, or where QLORA_CUDA_PLUGIN says.

#include <memory>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda/plugin.h"

namespace qlora::cuda {

struct Plugin {
  std::string trouble;  // why there is none, in one line; empty: the functions are there
  ReportFunction report = nullptr;
  MeasureFunction measure = nullptr;
  MakeFunction make = nullptr;
  MostBytesFunction most_bytes = nullptr;
  DeviceUseFunction device_use = nullptr;
  TimeProductFunction time_product = nullptr;
};

// Looks once; later calls give the same answer.
const Plugin& plugin();

}  // namespace qlora::cuda
