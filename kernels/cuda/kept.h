#pragma once
// Decoded weights that stay on the device for the call that reads them next: a layer's, from recomputing it
// to its gradients: as large as a layer's, that spares a third of all decoding. A ring: what comes takes the
// place of what came first. How large it is says DeviceOptions.

#include <array>
#include <deque>
#include <span>

#include "kernels/args_matmul.h"
#include "kernels/cuda/device.h"

namespace qlora::cuda {

inline constexpr size_t kMostTerms = 3;

// The matrices of a call one below the other, each padded to eight rows, and room for adapters below and
// beside them.
struct Stack {
  std::array<const void*, kMostTerms> weights = {};  // their data
  int64_t rows = 0, pitch = 0;
  bf16* at = nullptr;
  std::array<bool, kMostTerms> decoded = {};  // which of them are there
};

class Kept {
 public:
  explicit Kept(size_t bytes) : size_(static_cast<int64_t>(bytes / sizeof(bf16))) {}
  // The stack of these weights, with what it held, or one that holds nothing. Throws Error where it is larger
  // than all.
  Stack& stack(std::span<const WeightView> weights, int64_t rows, int64_t pitch);
  // What lies at p becomes something else.
  void forget(const void* p, size_t bytes);

 private:
  struct Entry {
    int64_t begin, end;
    Stack stack;
  };
  const int64_t size_;  // elements
  int64_t next_ = 0;
  Scratch room_;
  std::deque<Entry> entries_;
};

}  // namespace qlora::cuda
