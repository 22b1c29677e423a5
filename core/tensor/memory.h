#pragma once
// An arena over one backend: hands out and takes back blocks, keeps freed ones for reuse (so that a step has
// fixed addresses and no system calls), and counts what is in use by tag.

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "kernels/backend.h"

namespace qlora {

enum class Tag : uint8_t { weights, adapters, optimizer, activations, scratch };
inline constexpr int kTags = 5;
const char* name_of(Tag);

// Not thread-safe: one driver thread owns it. Tensors made through it must be gone before it is.
class Memory {
 public:
  explicit Memory(Backend& backend) : backend_(&backend) {}
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  Backend& backend() const { return *backend_; }
  // 256-byte aligned, uninitialised. Throws Error(memory) when the backend has no more, after cached blocks
  // were given back.
  void* allocate(size_t bytes, Tag);
  // REQUIRES: what allocate() returned, with the same bytes and tag.
  void release(void*, size_t bytes, Tag) noexcept;
  // Gives cached blocks back to the backend.
  void trim();

  // Requested bytes in use now, and the largest ever (of all tags together, and of each).
  size_t used() const { return used_; }
  size_t used(Tag t) const { return used_by_[static_cast<size_t>(t)]; }
  size_t peak() const { return peak_; }
  size_t peak(Tag t) const { return peak_by_[static_cast<size_t>(t)]; }
  void reset_peak();
  // Bytes of freed blocks kept for reuse.
  size_t cached() const { return cached_; }

 private:
  static size_t block_size(size_t bytes);
  void* take_cached(size_t block);
  void* take_new(size_t block);

  Backend* backend_;
  std::map<size_t, std::vector<void*>> free_;  // by block size
  size_t used_ = 0, peak_ = 0, cached_ = 0;
  std::array<size_t, kTags> used_by_{}, peak_by_{};
};

}  // namespace qlora
