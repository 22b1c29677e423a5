#pragma once
// The boundary between the program and its plug-in libqlora_cuda.so: functions with C names and plain data,
// found at run time. A plug-in is taken only where it was built from the headers that the program was built
// from. Both name QLORA_CUDA_INTERFACE, a hash of this file, kernels/backend.h, core/base/error.h and all
// that they include; the build defines it for the files that name it (kernels/CMakeLists.txt).

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device_use.h"

namespace qlora {

class Backend;
struct DeviceOptions;

namespace cuda {

inline constexpr int kMostDevices = 16;

struct DeviceEntry {
  char name[256] = {};
  int major = 0, minor = 0;
  uint64_t free = 0, total = 0;  // bytes
  char trouble[256] = {};        // why it cannot be used, or empty
};

// What the plug-in finds on this machine.
struct DeviceReport {
  int driver = 0, runtime = 0;  // of CUDA, 13000 for 13.0; driver 0: there is none
  char release[64] = {};        // of the driver, where its management library tells
  int devices = 0;              // at most kMostDevices
  DeviceEntry device[kMostDevices] = {};
  char trouble[256] = {};    // why there is none, or empty
  char libraries[512] = {};  // of NVIDIA's that are used, or why they are not
  bool blas = false;         // cuBLAS is one of them
};

struct MemoryReport {
  uint64_t context = 0, available = 0;
  bool others = false;
  char trouble[256] = {};  // why it is not known, or empty
};

// qlora_cuda_interface, qlora_cuda_report, qlora_cuda_measure (of the first device),
// qlora_cuda_make, qlora_cuda_most_bytes, qlora_cuda_device_use, qlora_cuda_time_product
// (product_time.h)
using InterfaceFunction = const char* (*)();
using ReportFunction = void (*)(DeviceReport*);
using MeasureFunction = void (*)(MemoryReport*);
// A Backend that the caller deletes. Throws Error.
using MakeFunction = Backend* (*)(const DeviceOptions*);
using MostBytesFunction = size_t (*)();
using DeviceUseFunction = void (*)(DeviceUse*);
using TimeProductFunction = double (*)(int64_t m, int64_t n, int64_t k, bool w_is_kn, bool quick);

}  // namespace cuda
}  // namespace qlora
