#include "kernels/cuda/management.h"

#include <dlfcn.h>

namespace qlora::cuda {

// The library's own names and layouts (NVML's reference): every function returns 0 where it did its work.
struct Management::Functions {
  struct Memory {
    unsigned long long total, free, used;
  };
  void* nvml = nullptr;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*driver_version)(char*, unsigned) = nullptr;
  int (*handle)(const char*, void**) = nullptr;
  int (*memory)(void*, Memory*) = nullptr;

  template <class Function>
  bool find(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(nvml, name));
    return function != nullptr;
  }
  bool find_all() {
    return find(init, "nvmlInit_v2") && find(shutdown, "nvmlShutdown") &&
           find(driver_version, "nvmlSystemGetDriverVersion") &&
           find(handle, "nvmlDeviceGetHandleByPciBusId_v2") && find(memory, "nvmlDeviceGetMemoryInfo");
  }
};

Management::Management() {
  void* nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (nvml == nullptr) return;
  functions_ = new Functions{.nvml = nvml};
  if (functions_->find_all() && functions_->init() == 0) return;
  delete functions_;
  functions_ = nullptr;
  dlclose(nvml);
}

Management::~Management() {
  if (functions_ == nullptr) return;
  functions_->shutdown();
  dlclose(functions_->nvml);
  delete functions_;
}

std::string Management::driver_release() const {
  char text[64] = {};
  if (functions_ == nullptr || functions_->driver_version(text, sizeof(text)) != 0) return "";
  return text;
}

bool Management::free_memory(const char* pci_address, uint64_t total, uint64_t& free) const {
  void* device = nullptr;
  Functions::Memory memory{};
  if (functions_ == nullptr || functions_->handle(pci_address, &device) != 0 ||
      functions_->memory(device, &memory) != 0)
    return false;
  // The library counts what the driver reserves for itself too, a few per cent.
  if (memory.total > total + total / 8) return false;
  free = memory.free;
  return true;
}

}  // namespace qlora::cuda
