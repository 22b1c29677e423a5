#include "kernels/cuda/load.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <utility>

namespace qlora::cuda {
namespace {

constexpr const char* kFile = "libqlora_cuda.so";

std::filesystem::path plugin_path() {
  const char* chosen = std::getenv("QLORA_CUDA_PLUGIN");
  if (chosen != nullptr && *chosen != '\0') return chosen;
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / kFile;
}

Plugin without(std::string why) {
  Plugin none;
  none.trouble = std::move(why);
  return none;
}

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
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
  InterfaceFunction named = nullptr;
  if (!find(library, "qlora_cuda_interface", named))
    return without(path.string() + " is not a plug-in of this program, or of a much older build of it");
  if (const std::string found = named(); found != QLORA_CUDA_INTERFACE)
    return without(path.string() + " is of another build (interface " + found + ", the program's is " +
                   QLORA_CUDA_INTERFACE + "): build both together");
  Plugin found;
  if (!find(library, "qlora_cuda_report", found.report) ||
      !find(library, "qlora_cuda_measure", found.measure) || !find(library, "qlora_cuda_make", found.make) ||
      !find(library, "qlora_cuda_most_bytes", found.most_bytes) ||
      !find(library, "qlora_cuda_device_use", found.device_use) ||
      !find(library, "qlora_cuda_time_product", found.time_product))
    return without(path.string() + " lacks functions of a plug-in of this program");
  return found;
}

}  // namespace

const Plugin& plugin() {
  static const Plugin found = look();
  return found;
}

}  // namespace qlora::cuda
