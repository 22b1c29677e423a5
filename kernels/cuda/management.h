#pragma once
// The driver's management library (libnvidia-ml.so.1), found at run time: it tells of a device's memory
// without making a context there.

#include <cstdint>
#include <string>

namespace qlora::cuda {

class Management {
 public:
  Management();
  ~Management();
  Management(const Management&) = delete;
  Management& operator=(const Management&) = delete;

  // "580.65.06", or empty where there is no such library.
  std::string driver_release() const;
  // Of the device with this PCI address and so much memory; false where the library does not know it, or
  // knows it only as a part of a larger one (MIG).
  bool free_memory(const char* pci_address, uint64_t total, uint64_t& free) const;

 private:
  struct Functions;
  Functions* functions_ = nullptr;
};

}  // namespace qlora::cuda
