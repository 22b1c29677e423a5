#include "core/tensor/memory.h"

#include <algorithm>
#include <bit>

#include "core/base/error.h"

namespace qlora {

namespace {

// Freed bytes that are kept although nothing like them was asked for again. Above this (or above what is in
// use, if that is more) a miss first gives everything cached back, so that ragged batches cannot pile up
// blocks.
constexpr size_t kCacheFloor = size_t{64} << 20;

}  // namespace

const char* name_of(Tag t) {
  switch (t) {
    case Tag::weights:
      return "weights";
    case Tag::adapters:
      return "adapters";
    case Tag::optimizer:
      return "optimizer";
    case Tag::activations:
      return "activations";
    default:
      return "scratch";
  }
}

size_t Memory::block_size(size_t bytes) {
  constexpr size_t kUnit = 256;
  size_t rounded = std::max(kUnit, (bytes + kUnit - 1) / kUnit * kUnit);
  // Eight sizes per power of two: at most an eighth is wasted, and nearly equal requests share blocks.
  size_t step = std::max(kUnit, std::bit_floor(rounded) / 8);
  return (rounded + step - 1) / step * step;
}

Memory::~Memory() {
  trim();
}

void* Memory::allocate(size_t bytes, Tag tag) {
  size_t block = block_size(bytes);
  void* p = take_cached(block);
  if (p == nullptr) p = take_new(block);
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  size_t& used = used_by_[static_cast<size_t>(tag)];
  used += bytes;
  peak_by_[static_cast<size_t>(tag)] = std::max(peak_by_[static_cast<size_t>(tag)], used);
  return p;
}

void* Memory::take_cached(size_t block) {
  auto found = free_.find(block);
  if (found == free_.end() || found->second.empty()) return nullptr;
  void* p = found->second.back();
  found->second.pop_back();
  cached_ -= block;
  return p;
}

void* Memory::take_new(size_t block) {
  if (cached_ > std::max(used_, kCacheFloor)) trim();
  try {
    return backend_->allocate(block);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::memory || cached_ == 0) throw;
  }
  trim();
  return backend_->allocate(block);
}

void Memory::release(void* p, size_t bytes, Tag tag) noexcept {
  size_t block = block_size(bytes);
  used_ -= bytes;
  used_by_[static_cast<size_t>(tag)] -= bytes;
  try {
    free_[block].push_back(p);
    cached_ += block;
  } catch (...) {  // no memory to remember it
    backend_->release(p, block);
  }
}

void Memory::trim() {
  for (auto& [block, list] : free_) {
    for (void* p : list) backend_->release(p, block);
  }
  free_.clear();
  cached_ = 0;
}

void Memory::reset_peak() {
  peak_ = used_;
  peak_by_ = used_by_;
}

}  // namespace qlora
