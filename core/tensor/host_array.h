#pragma once
// Bytes of the host that a device copies from and to at full speed (Memory::allocate_host).

#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "core/tensor/memory.h"

namespace qlora {

class HostArray {
 public:
  HostArray() = default;  // empty
  HostArray(Memory& memory, size_t bytes, Tag tag) : memory_(&memory), size_(bytes), tag_(tag) {
    data_ = static_cast<std::byte*>(memory.allocate_host(bytes, tag));
  }
  HostArray(HostArray&& other) noexcept { *this = std::move(other); }
  HostArray& operator=(HostArray&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(tag_, other.tag_);
    return *this;
  }
  ~HostArray() {
    if (data_ != nullptr) memory_->release_host(data_, size_, tag_);
  }

  // The host may look at them after synchronize(), and never where the backend only counts.
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Memory* memory_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  Tag tag_ = Tag::optimizer;
};

}  // namespace qlora
