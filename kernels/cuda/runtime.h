#pragma once
// A device's memory and its queue of work, for CUDA (runtime.cu) and for the emulation
// (emulated/runtime.cpp), which takes CUDA's promises at their worst: nothing runs before the host waits, the
// host cannot reach device memory, and what is allocated holds NaN bits and ends at a page that faults.

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/repeats.h"
#if defined(__CUDACC__)
#include "kernels/cuda/graph.h"
#endif

namespace qlora::cuda {

// 256-byte aligned, uninitialised. Throws Error(memory) with what was asked and what is free. Releasing waits
// for all work.
void* allocate_device(size_t bytes);
void release_device(void* p) noexcept;
// What is allocated on devices, as it was asked for: now, and the most that ever was.
struct DeviceBytes {
  size_t now = 0, most = 0;
};
DeviceBytes device_bytes();

// Memory of the host that Stream::load and store copy at full speed (CUDA: pinned), zeros. Releasing waits
// for all work.
void* allocate_host(size_t bytes);
void release_host(void* p) noexcept;

// A point in the work of a stream.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

 private:
  friend class Stream;
  struct State;
  std::unique_ptr<State> state_;
};

// Work in order. Errors of the work (a fault of a kernel) are thrown by whatever waits for it. What comes
// again may be held back until somebody waits, and then go to the device at once (repeats.h).
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // The host's bytes may change as soon as copy_in returns; copy_out waits for them.
  void copy_in(void* device, const void* host, size_t bytes);
  void copy_out(void* host, const void* device, size_t bytes);
  void copy(void* to, const void* from, size_t bytes);  // both on the device
  void fill(void* device, size_t bytes, uint8_t value);
  void wait();

  // Copies from and to memory of allocate_host(), whose bytes are read and written when the work runs.
  void load(void* device, const void* host, size_t bytes);
  void store(void* host, const void* device, size_t bytes);

  // The event stands for all work so far, instead of what it stood for.
  void record(Event&);
  // Work from now on waits for what the event stands for now; for nothing where it never was recorded.
  void wait_for(const Event&);

  // What libraries call the stream: a cudaStream_t, or this.
  void* raw();

  // Work of a library's: `call` gives it to the stream, the same for the same numbers, and neither waits nor
  // allocates. It may be called more than once, and until the host has waited: whoever owns what it names
  // breaks off before that goes.
  void call(WorkPiece, std::span<const int64_t> numbers, std::function<void()> call);

  // What is held back goes now.
  void break_off();
  static void break_off_all();  // of all streams

  // kernel<<<grid, block, shared>>>(arguments...)
  template <class... P, class... A>
  void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... arguments) {
#if defined(__CUDACC__)
    [&](P... values) {
      const void* const places[] = {&values...};
      constexpr size_t kSizes[] = {sizeof(P)...};
      launch({reinterpret_cast<const void*>(kernel), grid, block, shared, sizeof...(P), places, kSizes});
    }(static_cast<P>(arguments)...);
#else
    enqueue({WorkKind::kernel, reinterpret_cast<const void*>(kernel),
             shape_of({grid.x, grid.y, grid.z, block.x, block.y, block.z, static_cast<int64_t>(shared)})},
            [=] { emulated::run_grid(grid, block, shared, [&] { kernel(static_cast<P>(arguments)...); }); });
#endif
  }

 private:
  friend class Event;
  struct State;
#if defined(__CUDACC__)
  void launch(const KernelCall&);
#else
  friend struct StreamOfBlas;  // emulated/blas.cpp
  void enqueue(WorkPiece, std::function<void()> work);
  void give(std::function<void()> work);  // past what is held back, as a library does
  std::vector<std::shared_ptr<State> > others() const;
#endif
  std::shared_ptr<State> state_;
};

// Room on the device that calls of kernels use and leave undefined; grows, and stays for later calls.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  // 256-byte aligned. Waits for all work when it grows.
  void* bytes(size_t n);
  template <class T>
  T* of(size_t n) {
    return static_cast<T*>(bytes(n * sizeof(T)));
  }
  size_t size() const { return size_; }

 private:
  void* block_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qlora::cuda
