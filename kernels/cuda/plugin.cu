// What libqlora_cuda.so shows to the program.

#include "kernels/cuda/plugin.h"

#include <cstdio>
#include <cstring>

#include "kernels/cuda/backend.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/gpu.h"

namespace {

using qlora::cuda::DeviceReport;

// 13000 as 13.0
void version_text(char (&text)[16], int version) {
  std::snprintf(text, sizeof(text), "%d.%d", version / 1000, version % 1000 / 10);
}

void append_blas(DeviceReport* report) {
  const qlora::cuda::FoundBlas blas = qlora::cuda::find_blas();
  const size_t n = std::strlen(report->text);
  std::snprintf(report->text + n, sizeof(report->text) - n, "; %s%s", blas.text.c_str(),
                blas.usable ? "" : ": products of many rows by kernels of our own, slower");
}

void describe(DeviceReport* report, int device, const char* driver, const char* runtime) {
  cudaDeviceProp properties{};
  size_t free = 0, total = 0;
  cudaError_t status = cudaGetDeviceProperties(&properties, device);
  if (status == cudaSuccess) status = cudaMemGetInfo(&free, &total);
  if (status != cudaSuccess) {
    std::snprintf(report->text, sizeof(report->text), "device %d: %s", device, cudaGetErrorString(status));
    return;
  }
  const bool enough = properties.major >= 8;
  std::snprintf(report->text, sizeof(report->text),
                "%s, compute capability %d.%d%s, %zu of %zu MiB free, driver for CUDA %s, built with CUDA %s",
                properties.name, properties.major, properties.minor, enough ? "" : " (8.0 is needed)",
                free >> 20, total >> 20, driver, runtime);
  report->usable = enough;
  if (enough) append_blas(report);
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) int qlora_cuda_version() {
  return qlora::cuda::kPluginVersion;
}

__attribute__((visibility("default"))) void qlora_cuda_report(DeviceReport* report) {
  int driver_version = 0, runtime_version = 0, devices = 0;
  cudaDriverGetVersion(&driver_version);
  cudaRuntimeGetVersion(&runtime_version);
  char driver[16], runtime[16];
  version_text(driver, driver_version);
  version_text(runtime, runtime_version);
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (driver_version == 0) {
    std::snprintf(report->text, sizeof(report->text), "no NVIDIA driver; one for CUDA %s or later is needed",
                  runtime);
  } else if (status != cudaSuccess) {
    std::snprintf(report->text, sizeof(report->text), "%s (driver for CUDA %s found, for %s needed)",
                  cudaGetErrorString(status), driver, runtime);
  } else if (devices == 0) {
    std::snprintf(report->text, sizeof(report->text), "a driver for CUDA %s, but no device", driver);
  } else {
    describe(report, 0, driver, runtime);
  }
}

__attribute__((visibility("default"))) qlora::Backend* qlora_cuda_make() {
  return qlora::cuda::make_backend().release();
}

}  // extern "C"
