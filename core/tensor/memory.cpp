#include "core/tensor/memory.h"

#include <algorithm>

#include "core/base/error.h"

namespace qlora {

const char* name_of(Tag t) {
  switch (t) {
    case Tag::weights:
      return "weights";
    case Tag::adapters:
      return "adapters";
    case Tag::gradients:
      return "gradients";
    case Tag::optimizer:
      return "optimizer";
    case Tag::activations:
      return "activations";
    default:
      return "scratch";
  }
}

void* Memory::allocate(size_t bytes, Tag tag) {
  Arena& arena = arena_of(tag);
  void* p = nullptr;
  try {
    p = arena.allocate(bytes);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::memory) throw;
    trim();  // the other arena may hold what this one lacks
    p = arena.allocate(bytes);
  }
  count(bytes, tag);
  return p;
}

void Memory::release(void* p, size_t bytes, Tag tag) noexcept {
  uncount(bytes, tag);
  arena_of(tag).release(p, bytes);
}

void Memory::adopt(size_t bytes, Tag tag) {
  adopted_ += bytes;
  count(bytes, tag);
}

void Memory::disown(size_t bytes, Tag tag) noexcept {
  adopted_ -= bytes;
  uncount(bytes, tag);
}

void Memory::count(size_t bytes, Tag tag) {
  used_ += bytes;
  size_t& used = used_by_[static_cast<size_t>(tag)];
  used += bytes;
  if (used_ > peak_) {
    peak_ = used_;
    at_peak_by_ = used_by_;
  }
  peak_by_[static_cast<size_t>(tag)] = std::max(peak_by_[static_cast<size_t>(tag)], used);
  held_peak_ = std::max(held_peak_, held());
}

void Memory::uncount(size_t bytes, Tag tag) noexcept {
  used_ -= bytes;
  used_by_[static_cast<size_t>(tag)] -= bytes;
}

void* Memory::allocate_host(size_t bytes, Tag tag) {
  void* p = lasts(tag) ? backend_->allocate_host(bytes) : host_passing_.allocate(bytes);
  host_used_ += bytes;
  return p;
}

void Memory::release_host(void* p, size_t bytes, Tag tag) noexcept {
  lasts(tag) ? backend_->release_host(p, bytes) : host_passing_.release(p, bytes);
  host_used_ -= bytes;
}

void Memory::trim() noexcept {
  lasting_.trim();
  passing_.trim();
  host_passing_.trim();
}

void Memory::reset_peak() {
  peak_ = used_;
  peak_by_ = at_peak_by_ = used_by_;
  lasting_.reset_extent();
  passing_.reset_extent();
  host_passing_.reset_extent();
  held_peak_ = held();
}

}  // namespace qlora
