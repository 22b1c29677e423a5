// For tests: a plug-in without CUDA. It shows two GPUs; QLORA_TEST_GPUS=0 hides them, =old makes the first
// one that is too old, =other makes the plug-in one of another build.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "kernels/cuda/plugin.h"

using namespace qlora::cuda;

namespace {

constexpr uint64_t kMiB = 1 << 20;

std::string asked() {
  const char* text = std::getenv("QLORA_TEST_GPUS");
  return text == nullptr ? "" : text;
}

template <size_t n>
void put(char (&to)[n], const char* text) {
  std::strncpy(to, text, n - 1);
}

}  // namespace

extern "C" {

const char* qlora_cuda_interface() {
  return asked() == "other" ? "0123456789abcdef" : QLORA_CUDA_INTERFACE;
}

void qlora_cuda_report(DeviceReport* report) {
  report->driver = 13010;
  report->runtime = 13000;
  put(report->release, "581.2");
  if (asked() == "0") return put(report->trouble, "no device");
  put(report->libraries, "no cuBLAS (of a test)");
  report->devices = 2;
  DeviceEntry &first = report->device[0], &second = report->device[1];
  put(first.name, "Test GPU");
  first.major = 8;
  first.minor = 6;
  first.free = 5632 * kMiB;
  first.total = 6144 * kMiB;
  put(second.name, "Old GPU");
  second.major = 7;
  second.minor = 5;
  put(second.trouble, "compute capability 8.0 or more is needed");
  if (asked() == "old") std::swap(first, second);
}

void qlora_cuda_measure(MemoryReport* report) {
  report->context = 300 * kMiB;
  report->available = 5632 * kMiB;
}

qlora::Backend* qlora_cuda_make(const qlora::DeviceOptions*) {
  return nullptr;
}

size_t qlora_cuda_most_bytes() {
  return 0;
}

void qlora_cuda_device_use(qlora::DeviceUse*) {}

double qlora_cuda_time_product(int64_t, int64_t, int64_t, bool, bool) {
  return 0;
}

}  // extern "C"
