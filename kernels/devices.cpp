// The GPUs, as the plug-in finds them.

#include "kernels/devices.h"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "core/base/check.h"
#include "kernels/cuda/load.h"

namespace qlora {
namespace {

// Releases of the driver from which on a version of CUDA runs (NVIDIA's table of minimum versions).
const char* release_for(int runtime) {
  return runtime / 1000 == 12 ? "525.60" : runtime / 1000 == 13 ? "580.65" : "";
}

std::string version_text(int version) {
  return fmt::format("for CUDA {}.{}", version / 1000, version % 1000 / 10);
}

std::string in_brackets(const std::string& text) {
  return text.empty() ? "" : " (" + text + ")";
}

GpuReport look() {
  GpuReport all;
  const cuda::Plugin& plugin = cuda::plugin();
  all.trouble = plugin.trouble;
  if (!all.trouble.empty()) return all;
  cuda::DeviceReport report;
  plugin.report(&report);
  if (report.driver > 0) all.driver = version_text(report.driver) + in_brackets(report.release);
  // Later minor versions of a toolkit run on the drivers of its first.
  all.needed = version_text(report.runtime / 1000 * 1000) + in_brackets(release_for(report.runtime));
  all.libraries = report.libraries;
  all.blas = report.blas;
  for (int i = 0; i < report.devices; ++i) {
    const cuda::DeviceEntry& d = report.device[i];
    all.gpus.push_back({d.name, d.major, d.minor, d.free, d.total, d.trouble});
  }
  if (report.trouble[0] != '\0') {
    all.trouble = fmt::format("{}; a driver {} or later is needed{}", report.trouble, all.needed,
                              all.driver.empty() ? "" : ", one " + all.driver + " was found");
  } else if (!all.gpus[0].trouble.empty()) {
    all.trouble = describe(all.gpus[0]);
  }
  return all;
}

}  // namespace

const GpuReport& gpu_report() {
  static const GpuReport report = look();
  return report;
}

std::string describe(const GpuInfo& gpu) {
  std::string text = gpu.name.empty() ? "a device" : gpu.name;
  if (gpu.major > 0) text += fmt::format(", compute capability {}.{}", gpu.major, gpu.minor);
  if (!gpu.trouble.empty()) return text + ": " + gpu.trouble;
  return text + fmt::format(", {} of {} MiB free", gpu.free >> 20, gpu.total >> 20);
}

std::optional<size_t> kept_bytes_asked() {
  const char* text = std::getenv("QLORA_CUDA_KEEP");
  if (text == nullptr || *text == '\0') return {};
  size_t mib = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, mib);
  QLORA_CHECK(error == std::errc() && stop == end && mib <= size_t{1} << 20, usage,
              "QLORA_CUDA_KEEP: expected a number of MiB, found `{}`", text);
  return mib << 20;
}

GpuMemory measure_gpu() {
  const GpuReport& report = gpu_report();
  QLORA_CHECK(report.usable(), usage, "no GPU: {}", report.trouble);
  cuda::MemoryReport memory;
  cuda::plugin().measure(&memory);
  QLORA_CHECK(memory.trouble[0] == '\0', failure, "{}: its memory cannot be measured: {}",
              report.gpus.at(0).name, memory.trouble);
  return {memory.context, memory.available, memory.others};
}

}  // namespace qlora
