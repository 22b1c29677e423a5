#pragma once
// One stretch of addresses for many tensors: best fit, neighbours that are free become one, so that a step
// that repeats finds the same addresses and asks the system for nothing.

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "kernels/backend.h"

namespace qlora {

// Where the addresses are: Backend::allocate(), or allocate_host().
enum class Side : uint8_t { device, host };

// Not thread-safe. Everything must have been released before it is gone.
class Arena {
 public:
  explicit Arena(Backend& backend, Side side = Side::device) : backend_(&backend), side_(side) {}
  ~Arena() { trim(); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // 256-byte aligned. Throws Error(memory) when the backend has no more.
  void* allocate(size_t bytes);
  // REQUIRES: what allocate() returned, with the same bytes.
  void release(void*, size_t bytes) noexcept;
  // Makes room for `bytes` in one piece, if nothing is in use: what is planned then needs no second piece.
  void reserve(size_t bytes);
  // What reserve() of so much takes from the backend.
  static size_t taken_by(size_t reserved);
  // Gives pieces that nothing uses back to the backend.
  void trim() noexcept;

  // Bytes up to the highest address ever handed out, in all pieces: what may be resident, since memory beyond
  // it has never been touched.
  size_t extent() const;
  // Forgets how far it has been used before.
  void reset_extent();

 private:
  // One piece of memory of the backend.
  struct Slab {
    std::byte* base = nullptr;
    size_t size = 0;
    size_t extent = 0;  // highest end of a block so far
    size_t used = 0;
    std::map<size_t, size_t> free = {};  // offset → bytes; neighbours are never both free
  };
  void* take(Slab&, std::map<size_t, size_t>::iterator, size_t bytes);
  void add_slab(size_t bytes);
  void merge_if_empty();
  void* obtain(size_t bytes);

  Backend* backend_;
  Side side_;
  std::vector<Slab> slabs_;
};

}  // namespace qlora
