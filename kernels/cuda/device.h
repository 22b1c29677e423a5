#pragma once
// What the kernels' host side works with: the queue, and room on the device.

#include <array>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"

namespace qlora::cuda {

// Arrays of the host that one call of a kernel reads. Copies are ordered with the kernels, so every call may
// write over those of the call before.
class Uploads {
 public:
  // The arrays of the call before are no longer needed.
  void begin();
  // A copy of n values on the device; null for none.
  template <class T>
  const T* put(Stream& stream, const T* host, size_t n) {
    if (host == nullptr || n == 0) return nullptr;
    void* p = take(n * sizeof(T));
    stream.copy_in(p, host, n * sizeof(T));
    return static_cast<const T*>(p);
  }

 private:
  void* take(size_t bytes);
  std::vector<std::unique_ptr<Scratch>> blocks_;
  size_t used_ = 0, room_ = 0;
};

// What becomes of a destination: products are written or added, or their sums begin at what is there.
enum class Sums : uint8_t { overwrite, are_added, go_on };

// Buffers inside one call; each name has one at a time.
enum class Room : uint8_t {
  y,
  low_rank,
  partials,
  keys,
  queries,
  slabs,
  narrow,
  dropped,
  decoded,
  adapter,
  low,
  count
};

struct Paging;
struct Copies;
class Blas;
class Kept;

struct Device {
  DeviceOptions options = {};
  Stream stream = {};
  Uploads uploads = {};
  std::array<Scratch, static_cast<size_t>(Room::count)> rooms = {};
  std::shared_ptr<Paging> paging = {};  // made by the first call that pages (optimizer.h)
  std::shared_ptr<Copies> copies = {};  // likewise (copies.h)
  std::shared_ptr<Blas> blas_made = {};
  bool blas_looked_for = false;
  std::shared_ptr<Kept> kept_weights = {};

  // Null where there is no cuBLAS, or it is not wanted.
  Blas* blas();
  // Decoded weights that stay.
  Kept& kept();

  template <class T>
  T* room(Room which, size_t n) {
    return rooms[static_cast<size_t>(which)].of<T>(n);
  }
};

// Blocks of `threads` that cover n items.
inline unsigned blocks_for(int64_t n, int64_t threads) {
  return static_cast<unsigned>((n + threads - 1) / threads);
}

inline bool aligned(const void* p, size_t to) {
  return reinterpret_cast<uintptr_t>(p) % to == 0;
}

}  // namespace qlora::cuda
