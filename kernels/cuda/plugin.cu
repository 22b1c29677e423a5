// What libqlora_cuda.so shows to the program.

#include "kernels/cuda/plugin.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>

#include "kernels/cuda/backend.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/management.h"
#include "kernels/cuda/product_time.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/use.h"

namespace {

using qlora::cuda::DeviceEntry;
using qlora::cuda::DeviceReport;
using qlora::cuda::Management;
using qlora::cuda::MemoryReport;

// A backend has been made: the device's context is not ours to give back.
bool made = false;

template <size_t n>
void put(char (&text)[n], const char* value) {
  std::snprintf(text, n, "%s", value);
}

void name_blas(DeviceReport& report) {
  const qlora::cuda::FoundBlas blas = qlora::cuda::find_blas();
  report.blas = blas.usable;
  std::snprintf(report.libraries, sizeof(report.libraries), "%s%s", blas.text.c_str(),
                blas.usable ? "" : ": products of many rows by kernels of our own, slower");
}

// Free bytes, without a context where the driver's library tells; else with one, which then is given back.
cudaError_t find_free(const Management& management, int device, uint64_t total, uint64_t& free) {
  char address[32] = {};
  cudaError_t status = cudaDeviceGetPCIBusId(address, sizeof(address), device);
  if (status != cudaSuccess || management.free_memory(address, total, free)) return status;
  size_t now = 0, all = 0;
  status = cudaSetDevice(device);
  if (status == cudaSuccess) status = cudaMemGetInfo(&now, &all);
  cudaDeviceReset();
  if (device != 0 && cudaSetDevice(0) == cudaSuccess) cudaDeviceReset();  // choosing one makes its context
  free = now;
  return status;
}

void describe(DeviceEntry& entry, const Management& management, int device) {
  cudaDeviceProp properties{};
  cudaError_t status = cudaGetDeviceProperties(&properties, device);
  if (status == cudaSuccess) {
    put(entry.name, properties.name);
    entry.major = properties.major;
    entry.minor = properties.minor;
    entry.total = properties.totalGlobalMem;
    if (properties.major < 8) return put(entry.trouble, "compute capability 8.0 or more is needed");
    status = find_free(management, device, entry.total, entry.free);
  }
  if (status != cudaSuccess) put(entry.trouble, cudaGetErrorString(status));
  cudaGetLastError();
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) const char* qlora_cuda_interface() {
  return QLORA_CUDA_INTERFACE;
}

__attribute__((visibility("default"))) void qlora_cuda_report(DeviceReport* report) {
  cudaDriverGetVersion(&report->driver);
  cudaRuntimeGetVersion(&report->runtime);
  if (report->driver == 0) return put(report->trouble, "no NVIDIA driver");
  const Management management;
  put(report->release, management.driver_release().c_str());
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) {
    put(report->trouble, cudaGetErrorString(status));
    cudaGetLastError();
    return;
  }
  if (devices == 0) put(report->trouble, "no device");
  report->devices = std::min(devices, qlora::cuda::kMostDevices);
  for (int i = 0; i < report->devices; ++i) describe(report->device[i], management, i);
  name_blas(*report);
}

// The context, and cuBLAS's where it is there, are what becomes less by making them; where only the runtime
// tells of memory, which needs a context, all that is not free.
__attribute__((visibility("default"))) void qlora_cuda_measure(MemoryReport* report) try {
  const Management management;
  cudaDeviceProp properties{};
  char address[32] = {};
  uint64_t before = 0, after = 0;
  cudaError_t status = cudaGetDeviceProperties(&properties, 0);
  if (status == cudaSuccess) status = cudaDeviceGetPCIBusId(address, sizeof(address), 0);
  const bool told =
      !made && status == cudaSuccess && management.free_memory(address, properties.totalGlobalMem, before);
  size_t free = 0, total = 0;
  if (status == cudaSuccess) status = cudaFree(nullptr);  // makes the context
  if (status == cudaSuccess) {
    qlora::cuda::Stream stream;
    const qlora::cuda::FoundBlas found = qlora::cuda::find_blas();
    std::unique_ptr<qlora::cuda::Blas> blas;
    if (found.usable) blas = std::make_unique<qlora::cuda::Blas>(found, stream);
    status = cudaMemGetInfo(&free, &total);
    report->others = !(told && management.free_memory(address, properties.totalGlobalMem, after));
    const uint64_t ours = qlora::cuda::device_bytes().now;  // is planned apart
    report->context = (report->others ? total - free : before - std::min(before, after)) - ours;
    report->available = free + ours + report->context;
  }
  if (status != cudaSuccess) put(report->trouble, cudaGetErrorString(status));
  cudaGetLastError();
  if (!made) cudaDeviceReset();
} catch (const std::exception& e) {
  put(report->trouble, e.what());
}

__attribute__((visibility("default"))) qlora::Backend* qlora_cuda_make(const qlora::DeviceOptions* options) {
  made = true;
  return qlora::cuda::make_backend(*options).release();
}

__attribute__((visibility("default"))) size_t qlora_cuda_most_bytes() {
  return qlora::cuda::device_bytes().most;
}

__attribute__((visibility("default"))) void qlora_cuda_device_use(qlora::DeviceUse* use) {
  *use = qlora::cuda::device_use();
}

__attribute__((visibility("default"))) double qlora_cuda_time_product(int64_t m, int64_t n, int64_t k,
                                                                      bool w_is_kn, bool quick) {
  return qlora::cuda::time_of_product(m, n, k, w_is_kn, quick);
}

}  // extern "C"
