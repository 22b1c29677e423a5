#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "core/base/check.h"
#include "kernels/reference/reference.h"

namespace qlora {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kHugePage = size_t{2} << 20, kWorthHugePages = size_t{16} << 20;

void* aligned(size_t bytes) {
  // Large blocks are of huge pages where the system has them: fewer misses of the address cache.
  const size_t alignment = bytes >= kWorthHugePages ? kHugePage : kAlignment;
  const size_t largest = ~size_t{0} - alignment;
  size_t rounded = bytes > largest ? 0 : (bytes + alignment) / alignment * alignment;  // never zero bytes
  void* p = rounded == 0 ? nullptr : std::aligned_alloc(alignment, rounded);
  if (p != nullptr && alignment == kHugePage) ::madvise(p, rounded, MADV_HUGEPAGE);  // a wish
  QLORA_CHECK(
      p != nullptr, memory,
      "out of memory: {} bytes ({:.2f} GiB) could not be had; use a smaller batch, shorter sequences or "
      "fewer runs in a pack",
      bytes, static_cast<double>(bytes) / (1 << 30));
  return p;
}

}  // namespace

void* Reference::allocate(size_t bytes) {
  return aligned(bytes);
}

void Reference::release(void* p, size_t) noexcept {
  std::free(p);
}

void* Reference::allocate_host(size_t bytes) {
  void* p = allocate(bytes);
  fill(p, bytes, 0);
  return p;
}

void Reference::copy(void* dst, const void* src, size_t bytes, CopyKind) {
  if (bytes > 0) std::memcpy(dst, src, bytes);
}

void Reference::fill(void* p, size_t bytes, uint8_t value) {
  if (bytes > 0) std::memset(p, value, bytes);
}

void Reference::Free::operator()(std::byte* p) const noexcept {
  std::free(p);
}

size_t Reference::scratch_bytes() const {
  size_t sum = 0;
  for (const Buffer& buffer : scratch_) sum += buffer.size;
  return sum;
}

void* Reference::scratch(Scratch which, size_t bytes) {
  Buffer& buffer = scratch_[static_cast<size_t>(which)];
  if (buffer.size < bytes || !buffer.bytes) {
    buffer.bytes.reset();
    buffer.size = 0;
    buffer.bytes.reset(static_cast<std::byte*>(aligned(bytes)));
    buffer.size = bytes;
  }
  return buffer.bytes.get();
}

}  // namespace qlora
