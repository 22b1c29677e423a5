// Device memory and streams of the emulation.

#include "kernels/cuda/runtime.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "kernels/cuda/holding.h"

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

// All allocations, of QLORA_EMULATED_MEMORY bytes at most where that is set (by tests). Closed to the host
// except while work runs.
class DeviceMemory {
 public:
  void* allocate(size_t bytes);
  void release(void* p);
  void open(bool yes);
  DeviceBytes bytes();

 private:
  std::mutex mutex_;
  std::map<void*, Block> blocks_;
  DeviceBytes bytes_;
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
  std::lock_guard lock(mutex_);
  if (const char* most = std::getenv("QLORA_EMULATED_MEMORY")) {
    const size_t has = std::stoull(most);
    if (bytes > has - std::min(has, bytes_.now))
      throw Error(ErrorKind::memory, "CUDA emulation: no room for " + std::to_string(bytes) +
                                         " bytes: " + std::to_string(has - std::min(has, bytes_.now)) +
                                         " of " + std::to_string(has) + " bytes are free on the device");
  }
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
  protect(b, running_ > 0);
  blocks_[b.data] = b;
  bytes_.now += bytes;
  bytes_.most = std::max(bytes_.most, bytes_.now);
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
  bytes_.now -= b.bytes;
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

DeviceBytes DeviceMemory::bytes() {
  std::lock_guard lock(mutex_);
  return bytes_;
}

DeviceMemory& memory() {
  static DeviceMemory instance;
  return instance;
}

// The device's side of a stream. Work runs only when something waits for it: the host, or another stream that
// has come to an event of it. What no event orders runs as late as that allows; under all schedules but
// `forward`, as early.
struct Queue {
  // Held back: pieces of work, and calls that give some.
  struct Held {
    std::function<void()> run;
    bool calls = false;
  };
  using Work = std::vector<Held>;
  std::deque<std::function<void()>> work = {};
  uint64_t given = 0, done = 0;  // pieces of work

  void give(std::function<void()> piece) {
    work.push_back(std::move(piece));
    ++given;
  }
  void issue(const Work& pieces) {
    for (const Held& piece : pieces) {
      if (piece.calls) {
        piece.run();
      } else {
        give(piece.run);
      }
    }
  }
  bool whole(int, const Work& pieces) {
    issue(pieces);
    return true;
  }

  // The first `target` pieces are done after it. Work may come to an event and run other streams.
  void run_to(uint64_t target) {
    while (done < target && !work.empty()) {
      const std::function<void()> next = std::move(work.front());
      work.pop_front();
      ++done;
      try {
        next();
      } catch (...) {
        done += work.size();
        work.clear();
        throw;
      }
    }
  }
};

}  // namespace

struct Stream::State {
  const std::thread::id host = std::this_thread::get_id();
  Queue queue = {};
  // Which is faster, an emulation cannot tell.
  Holding<Queue> holding{queue, graphs_asked().value_or(Graphs::never)};
};

struct Event::State {
  std::shared_ptr<Stream::State> stream = nullptr;
  uint64_t done = 0;  // pieces of its work
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

std::function<void()> moving(void* to, const void* from, size_t bytes) {
  return [=] {
    if (bytes > 0) std::memmove(to, from, bytes);
  };
}

void keep_fault() {
  std::lock_guard lock(shared.mutex);
  if (!shared.fault) shared.fault = std::current_exception();
}

void throw_kept() {
  std::lock_guard lock(shared.mutex);
  if (shared.fault) std::rethrow_exception(std::exchange(shared.fault, nullptr));
}

}  // namespace

Stream::Stream() : state_(std::make_shared<State>()) {
  std::lock_guard lock(shared.mutex);
  shared.streams.push_back(this);
}

Stream::~Stream() {
  std::lock_guard lock(shared.mutex);
  std::erase(shared.streams, this);
}

void Stream::enqueue(WorkPiece piece, std::function<void()> work) {
  if (Queue::Work* held = state_->holding.next(piece)) return held->push_back({std::move(work)});
  state_->queue.give(std::move(work));
}

void Stream::call(WorkPiece piece, std::span<const int64_t>, std::function<void()> call) {
  if (Queue::Work* held = state_->holding.next(piece)) return held->push_back({std::move(call), true});
  call();
}

void Stream::give(std::function<void()> work) {
  state_->queue.give(std::move(work));
}

void Stream::break_off() {
  state_->holding.break_off();
}

void Stream::break_off_all() {
  std::lock_guard lock(shared.mutex);
  for (Stream* stream : shared.streams) stream->break_off();
}

void* Stream::raw() {
  return this;
}

void Stream::wait() {
  state_->holding.end_section();
  throw_kept();
  if (state_->queue.work.empty()) return;
  Opened opened;
  if (emulated::schedule().order != emulated::Order::forward)
    for (const std::shared_ptr<State>& other : others()) other->queue.run_to(other->queue.given);
  state_->queue.run_to(state_->queue.given);
  state_->holding.done();
}

// The streams of this thread of the host, but this one.
std::vector<std::shared_ptr<Stream::State>> Stream::others() const {
  std::lock_guard lock(shared.mutex);
  std::vector<std::shared_ptr<State>> all;
  for (const Stream* stream : shared.streams)
    if (stream != this && stream->state_->host == state_->host) all.push_back(stream->state_);
  return all;
}

Event::Event() : state_(std::make_unique<State>()) {}
Event::~Event() = default;

void Stream::record(Event& event) {
  break_off();
  event.state_->stream = state_;
  event.state_->done = state_->queue.given;
}

void Stream::wait_for(const Event& event) {
  break_off();
  if (event.state_->stream == nullptr) return;
  state_->queue.give(
      [other = event.state_->stream, done = event.state_->done] { other->queue.run_to(done); });
}

void Stream::load(void* device, const void* host, size_t bytes) {
  break_off();
  state_->queue.give(moving(device, host, bytes));
}

void Stream::store(void* host, const void* device, size_t bytes) {
  break_off();
  state_->queue.give(moving(host, device, bytes));
}

void Stream::copy_in(void* device, const void* host, size_t bytes) {
  const auto* from = static_cast<const std::byte*>(host);
  enqueue({WorkKind::upload, nullptr, bytes}, [device, kept = std::vector<std::byte>(from, from + bytes)] {
    if (!kept.empty()) std::memcpy(device, kept.data(), kept.size());
  });
}

void Stream::copy_out(void* host, const void* device, size_t bytes) {
  state_->holding.end_section();
  state_->queue.give(moving(host, device, bytes));
  wait();
}

void Stream::copy(void* to, const void* from, size_t bytes) {
  enqueue({WorkKind::copy, nullptr, bytes}, moving(to, from, bytes));
}

void Stream::fill(void* device, size_t bytes, uint8_t value) {
  enqueue({WorkKind::fill, nullptr, bytes}, [=] {
    if (bytes > 0) std::memset(device, value, bytes);
  });
}

void* allocate_device(size_t bytes) {
  return memory().allocate(bytes);
}

namespace {

void wait_for_all() {
  Stream::break_off_all();
  std::vector<Stream*> streams;
  {
    std::lock_guard lock(shared.mutex);
    streams = shared.streams;
  }
  for (Stream* stream : streams) stream->wait();
}

}  // namespace

void release_device(void* p) noexcept {
  if (p == nullptr) return;
  try {
    wait_for_all();
    memory().release(p);
  } catch (...) {
    keep_fault();
  }
}

void* allocate_host(size_t bytes) {
  const size_t room = rounded(std::max<size_t>(bytes, 1), kAlignment);
  void* p = std::aligned_alloc(kAlignment, room);
  if (p == nullptr)
    throw Error(ErrorKind::memory, "CUDA emulation: no host memory for " + std::to_string(bytes) + " bytes");
  std::memset(p, 0, room);
  return p;
}

void release_host(void* p) noexcept {
  if (p == nullptr) return;
  try {
    wait_for_all();
  } catch (...) {
    keep_fault();
  }
  std::free(p);
}

DeviceBytes device_bytes() {
  return memory().bytes();
}

}  // namespace qlora::cuda

size_t qlora::emulated::device_bytes() {
  return qlora::cuda::device_bytes().now;
}
