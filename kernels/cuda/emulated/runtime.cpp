// Device memory and streams of the emulation.

#include "kernels/cuda/runtime.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "core/base/error.h"

extern "C" {
void __asan_poison_memory_region(const volatile void* p, size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* p, size_t bytes) __attribute__((weak));
}

namespace qlora::cuda {
namespace {

constexpr size_t kAlignment = 256;
constexpr int kFresh = 0xff;  // NaN in every floating-point type

size_t rounded(size_t n, size_t to) {
  return (n + to - 1) / to * to;
}

// One allocation: mapped pages whose end is as near to the guard page as the alignment allows.
struct Block {
  std::byte* pages = nullptr;
  size_t mapped = 0;  // without the guard page
  std::byte* data = nullptr;
  size_t bytes = 0;
};

// All allocations. Closed to the host except while work runs.
class DeviceMemory {
 public:
  void* allocate(size_t bytes);
  void release(void* p);
  void open(bool yes);

 private:
  std::mutex mutex_;
  std::map<void*, Block> blocks_;
  int running_ = 0;  // streams whose work runs
};

void protect(const Block& b, bool open) {
  mprotect(b.pages, b.mapped, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void* DeviceMemory::allocate(size_t bytes) {
  constexpr size_t kMost = size_t{1} << 46;  // addresses of a process
  const auto page = static_cast<size_t>(getpagesize());
  if (bytes > kMost)
    throw Error(ErrorKind::memory, "CUDA emulation: no memory for " + std::to_string(bytes) + " bytes");
  const size_t room = rounded(std::max<size_t>(bytes, 1), kAlignment);
  Block b{.mapped = rounded(room, page), .bytes = bytes};
  void* pages = mmap(nullptr, b.mapped + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED)
    throw Error(ErrorKind::memory, "CUDA emulation: no memory for " + std::to_string(bytes) + " bytes");
  b.pages = static_cast<std::byte*>(pages);
  b.data = b.pages + b.mapped - room;
  mprotect(b.pages + b.mapped, page, PROT_NONE);
  std::memset(b.pages, kFresh, b.mapped);
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(b.pages, static_cast<size_t>(b.data - b.pages));
    __asan_poison_memory_region(b.data + bytes, room - bytes);
  }
  std::lock_guard lock(mutex_);
  protect(b, running_ > 0);
  blocks_[b.data] = b;
  return b.data;
}

// What lies around an allocation must still be as it was.
void check_margins(const Block& b) {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(b.pages, b.mapped);
  protect(b, true);
  for (const std::byte* p = b.pages; p < b.pages + b.mapped; ++p) {
    if (p == b.data) p += b.bytes;
    if (p < b.pages + b.mapped && *p != std::byte{kFresh})
      throw emulated::Fault("something wrote beside an allocation of " + std::to_string(b.bytes) + " bytes");
  }
}

void DeviceMemory::release(void* p) {
  std::lock_guard lock(mutex_);
  auto found = blocks_.find(p);
  if (found == blocks_.end()) throw emulated::Fault("released what was not allocated");
  const Block b = found->second;
  blocks_.erase(found);
  check_margins(b);
  munmap(b.pages, b.mapped + static_cast<size_t>(getpagesize()));
}

void DeviceMemory::open(bool yes) {
  std::lock_guard lock(mutex_);
  const bool was = running_ > 0;
  running_ += yes ? 1 : -1;
  if (was == (running_ > 0)) return;
  for (auto& [address, block] : blocks_) protect(block, yes);
}

DeviceMemory& memory() {
  static DeviceMemory instance;
  return instance;
}

}  // namespace

struct Stream::State {
  std::deque<std::function<void()>> work;
};

namespace {

struct Opened {
  Opened() { memory().open(true); }
  ~Opened() { memory().open(false); }
};

// All streams, and a fault found where none may be thrown: the next wait throws it.
struct {
  std::mutex mutex;
  std::vector<Stream*> streams;
  std::exception_ptr fault;
} shared;

void keep_fault() {
  std::lock_guard lock(shared.mutex);
  if (!shared.fault) shared.fault = std::current_exception();
}

void throw_kept() {
  std::lock_guard lock(shared.mutex);
  if (shared.fault) std::rethrow_exception(std::exchange(shared.fault, nullptr));
}

}  // namespace

Stream::Stream() : state_(std::make_unique<State>()) {
  std::lock_guard lock(shared.mutex);
  shared.streams.push_back(this);
}

Stream::~Stream() {
  std::lock_guard lock(shared.mutex);
  std::erase(shared.streams, this);
}

void Stream::enqueue(std::function<void()> work) {
  state_->work.push_back(std::move(work));
}

void Stream::wait() {
  throw_kept();
  if (state_->work.empty()) return;
  const std::deque<std::function<void()>> work = std::exchange(state_->work, {});
  Opened opened;
  for (const auto& each : work) each();
}

void Stream::copy_in(void* device, const void* host, size_t bytes) {
  const auto* from = static_cast<const std::byte*>(host);
  enqueue([device, kept = std::vector<std::byte>(from, from + bytes)] {
    if (!kept.empty()) std::memcpy(device, kept.data(), kept.size());
  });
}

void Stream::copy_out(void* host, const void* device, size_t bytes) {
  enqueue([=] {
    if (bytes > 0) std::memcpy(host, device, bytes);
  });
  wait();
}

void Stream::copy(void* to, const void* from, size_t bytes) {
  enqueue([=] {
    if (bytes > 0) std::memmove(to, from, bytes);
  });
}

void Stream::fill(void* device, size_t bytes, uint8_t value) {
  enqueue([=] {
    if (bytes > 0) std::memset(device, value, bytes);
  });
}

void* allocate_device(size_t bytes) {
  return memory().allocate(bytes);
}

void release_device(void* p) noexcept {
  if (p == nullptr) return;
  std::vector<Stream*> streams;
  {
    std::lock_guard lock(shared.mutex);
    streams = shared.streams;
  }
  try {
    for (Stream* stream : streams) stream->wait();
    memory().release(p);
  } catch (...) {
    keep_fault();
  }
}

}  // namespace qlora::cuda
