#pragma once
// Which backend a name stands for on this machine, and the GPUs that are there. Asking makes no backend, and
// leaves nothing behind in a GPU's memory.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/device_use.h"

namespace qlora {

struct GpuInfo {
  std::string name;
  int major = 0, minor = 0;    // compute capability
  size_t free = 0, total = 0;  // bytes of its memory
  std::string trouble;         // why it cannot be used; else empty
};

struct GpuReport {
  std::vector<GpuInfo> gpus;   // CUDA's order; the first is the one that is used (CUDA_VISIBLE_DEVICES)
  std::string driver, needed;  // "for CUDA 13.0 (580.65.06)"; empty: none found, and not known
  std::string trouble;         // why the first cannot be used, or why there is none, in one line; else empty
  std::string libraries;       // "cuBLAS 13 of ...", or why it is not used
  bool blas = false;           // it is there
  bool usable() const { return trouble.empty(); }
};
// Looks once, for the plug-in beside the program (kernels/cuda/load.h) and for what it finds.
const GpuReport& gpu_report();
// "NVIDIA H100, compute capability 9.0, 79000 of 81559 MiB free", and why it cannot be used.
std::string describe(const GpuInfo&);

struct GpuMemory {
  size_t context = 0;    // what the driver takes for a program before the program asks for any
  size_t available = 0;  // what a program may take now, its context included
  bool others = false;   // the driver does not tell them apart: the context counts what other programs use
};
// Of the first GPU: makes a context there and gives it back, unless this process has a backend there: then
// the context cannot be told from others. Throws Error where there is none that is usable.
GpuMemory measure_gpu();

// The name of the backend that make_backend(name) makes. Throws as it does.
std::string backend_named(std::string_view name);
// Whether the backend of this name finds cuBLAS, and may use it.
bool has_blas(std::string_view backend);
// Seconds of a product of bf16 matrices by cuBLAS alone, on the device of the backend of this name
// (cuda/product_time.h); 0 where there is none.
double time_of_blas(std::string_view backend, int64_t m, int64_t n, int64_t k, bool w_is_kn, bool quick);
// Of all work in this process by the backend of this name.
DeviceUse device_use(std::string_view backend);
// What QLORA_CUDA_KEEP says over every plan, in MiB: room for decoded weights that stay
// (DeviceOptions::kept_bytes). None where it is not set. Throws Error(usage).
std::optional<size_t> kept_bytes_asked();
// Most bytes of a GPU's memory that its backend has held, with what its kernels keep for themselves, since
// the process began; 0 for other backends.
size_t most_gpu_bytes(const Backend&);

}  // namespace qlora
