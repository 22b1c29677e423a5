#pragma once
// The memory of one pack over one backend: two arenas, one for what lasts (weights, adapters, optimizer), one
// for what a step makes and frees. A step that repeats finds the same addresses and makes no system call.
// Counts what is in use by tag, and what the arenas have touched. Beside them, memory of the host for what is
// not on the device.

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/tensor/arena.h"

namespace qlora {

enum class Tag : uint8_t { weights, adapters, gradients, optimizer, activations, scratch };
inline constexpr int kTags = 6;
const char* name_of(Tag);

// Not thread-safe: one driver thread owns it. Tensors made through it must be gone before it is.
class Memory {
 public:
  explicit Memory(Backend& backend)
      : backend_(&backend), lasting_(backend), passing_(backend), host_passing_(backend, Side::host) {}

  Backend& backend() const { return *backend_; }
  // 256-byte aligned, uninitialised. Throws Error(memory) when the backend has no more.
  void* allocate(size_t bytes, Tag);
  // REQUIRES: what allocate() returned, with the same bytes and tag.
  void release(void*, size_t bytes, Tag) noexcept;
  // Room for the activations and the scratch of a step, in one piece. Untouched room costs no memory on a
  // host.
  void reserve(size_t bytes) { passing_.reserve(bytes); }
  // The same for what lasts. Where untouched room does cost memory, as on a GPU, it then takes what is
  // planned for it, and not what a growing arena takes in advance.
  void reserve_lasting(size_t bytes) { lasting_.reserve(bytes); }
  // Gives back what nothing uses.
  void trim() noexcept;
  // Counts bytes that somebody else keeps for this memory's tensors (a mapped file): they are resident too.
  void adopt(size_t bytes, Tag);
  void disown(size_t bytes, Tag) noexcept;
  // Memory of the host that the device copies from and to (Backend::allocate_host), counted apart from all
  // others: for what lasts exactly so much, zeros at first; for what passes out of an arena.
  void* allocate_host(size_t bytes, Tag);
  void release_host(void*, size_t bytes, Tag) noexcept;
  // As reserve(), of the host's.
  void reserve_host(size_t bytes) {
    if (bytes > 0) host_passing_.reserve(bytes);
  }

  // Requested bytes in use now, and the largest ever (of all tags together, and of each).
  size_t used() const { return used_; }
  size_t used(Tag t) const { return used_by_[static_cast<size_t>(t)]; }
  size_t peak() const { return peak_; }
  size_t peak(Tag t) const { return peak_by_[static_cast<size_t>(t)]; }
  // Of a tag, when all tags together were at their peak.
  size_t at_peak(Tag t) const { return at_peak_by_[static_cast<size_t>(t)]; }
  // Of allocate_host(): in use now, and the arena's, as held_passing().
  size_t host_used() const { return host_used_; }
  size_t host_held_passing() const { return host_passing_.extent(); }
  // Bytes of the arenas up to the highest address that was handed out, and adopted ones: what may be
  // resident. More than used() by alignment, by freed blocks that nothing fits into, and by what is free at
  // the moment.
  size_t held() const { return lasting_.extent() + passing_.extent() + adopted_; }
  size_t held_peak() const { return held_peak_; }
  size_t held_passing() const { return passing_.extent(); }  // of it, by activations and scratch
  // Peaks start anew from what is in use.
  void reset_peak();

 private:
  static bool lasts(Tag t) { return t <= Tag::optimizer; }
  Arena& arena_of(Tag t) { return lasts(t) ? lasting_ : passing_; }
  void count(size_t bytes, Tag);
  void uncount(size_t bytes, Tag) noexcept;

  Backend* backend_;
  Arena lasting_, passing_, host_passing_;
  size_t used_ = 0, peak_ = 0, held_peak_ = 0, adopted_ = 0;
  std::array<size_t, kTags> used_by_{}, peak_by_{}, at_peak_by_{};
  size_t host_used_ = 0;
};

}  // namespace qlora
