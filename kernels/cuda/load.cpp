#include "kernels/cuda/load.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "kernels/cuda/plugin.h"

namespace qlora::cuda {
namespace {

constexpr const char* kFile = "libqlora_cuda.so";

std::filesystem::path plugin_path() {
  const char* chosen = std::getenv("QLORA_CUDA_PLUGIN");
  if (chosen != nullptr && *chosen != '\0') return chosen;
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / kFile;
}

struct Plugin {
  Found found;
  MakeFunction make = nullptr;
};

Plugin without(std::string why) {
  return {{false, std::move(why)}, nullptr};
}

// The library stays loaded: its code may run until the process ends.
Plugin look() {
  const std::filesystem::path path = plugin_path();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    return without(path.string() +
                   " is not there (built where nvcc is found; QLORA_CUDA_PLUGIN names another place)");
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return without(std::string("the plug-in does not load: ") + dlerror());
  auto version = reinterpret_cast<VersionFunction>(dlsym(library, "qlora_cuda_version"));
  auto report = reinterpret_cast<ReportFunction>(dlsym(library, "qlora_cuda_report"));
  auto make = reinterpret_cast<MakeFunction>(dlsym(library, "qlora_cuda_make"));
  if (version == nullptr || report == nullptr || make == nullptr)
    return without(path.string() + " is not a plug-in of this program");
  if (version() != kPluginVersion)
    return without(path.string() + " is of another build (version " + std::to_string(version()) + ", not " +
                   std::to_string(kPluginVersion) + "); build both together");
  DeviceReport device;
  report(&device);
  return {{device.usable, device.text}, device.usable ? make : nullptr};
}

const Plugin& plugin() {
  static const Plugin found = look();
  return found;
}

}  // namespace

const Found& find_device() {
  return plugin().found;
}

std::unique_ptr<Backend> make_from_plugin() {
  return plugin().make == nullptr ? nullptr : std::unique_ptr<Backend>(plugin().make());
}

}  // namespace qlora::cuda
