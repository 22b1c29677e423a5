// Device memory and streams of CUDA.

#include "kernels/cuda/runtime.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/check.h"

namespace qlora::cuda {
namespace {

// All that is allocated on the device.
struct {
  std::mutex mutex;
  std::map<void*, size_t> blocks;
  DeviceBytes bytes;
} allocated;

void note_allocated(void* p, size_t bytes) {
  std::lock_guard lock(allocated.mutex);
  allocated.blocks[p] = bytes;
  allocated.bytes.now += bytes;
  allocated.bytes.most = std::max(allocated.bytes.most, allocated.bytes.now);
}

void note_released(void* p) {
  std::lock_guard lock(allocated.mutex);
  const auto found = allocated.blocks.find(p);
  allocated.bytes.now -= found->second;
  allocated.blocks.erase(found);
}

}  // namespace

// Memory of the host from which the device copies while the caller goes on, made when it is first needed.
// When it is full, all that it holds is waited for.
struct Stream::State {
  static constexpr size_t kStage = size_t{4} << 20;
  cudaStream_t stream = nullptr;
  std::byte* stage = nullptr;
  size_t staged = 0;
  Repeats repeats{graphs_are_on()};
  HeldWork held = {};
  std::array<Graph, Repeats::kSections> graphs = {};

  // Whether the next piece is to be held back; else what was held back has gone, and it may go.
  bool holds(WorkPiece piece) {
    if (repeats.next(piece)) return true;
    go();
    return false;
  }
  void go() {
    held.issue(stream);
    held.clear();
  }
  // Work that nothing can hold back comes.
  void break_off() { holds({WorkKind::other}); }
  // The host is about to wait.
  void end_section() {
    const int section = repeats.end();
    if (section == Repeats::kNone) return go();
    graphs[static_cast<size_t>(section)].launch(held, stream);
  }
};

namespace {

// All streams: what is freed may be in what they hold back.
struct {
  std::mutex mutex;
  std::vector<Stream*> all;
} streams;

}  // namespace

void Stream::break_off_all() {
  std::lock_guard lock(streams.mutex);
  for (Stream* stream : streams.all) stream->state_->break_off();
}

Stream::Stream() : state_(std::make_shared<State>()) {
  check(cudaStreamCreateWithFlags(&state_->stream, cudaStreamNonBlocking), "no stream");
  std::lock_guard lock(streams.mutex);
  streams.all.push_back(this);
}

Stream::~Stream() {
  {
    std::lock_guard lock(streams.mutex);
    std::erase(streams.all, this);
  }
  state_->held.clear();  // nobody waits for it
  cudaStreamSynchronize(state_->stream);
  release_host(state_->stage);
  cudaStreamDestroy(state_->stream);
}

void* Stream::raw() {
  return state_->stream;
}

void Stream::break_off() {
  state_->break_off();
}

FoundBlas find_blas() {
  return find_blas_library();
}

void Stream::launch(const KernelCall& call) {
  constexpr size_t kWithoutAsking = size_t{48} << 10;  // more shared memory must be asked for
  if (call.shared > kWithoutAsking)
    check(cudaFuncSetAttribute(call.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(call.shared)),
          "shared memory of a block");
  if (state_->holds({WorkKind::kernel, call.kernel})) return state_->held.add(call);
  check(cudaLaunchKernel(call.kernel, call.grid, call.block, const_cast<void**>(call.arguments), call.shared,
                         state_->stream),
        "launching a kernel");
}

void Stream::copy_in(void* device, const void* host, size_t bytes) {
  constexpr size_t kAlignment = 256;
  if (bytes == 0) return;
  if (bytes > State::kStage / 8) {
    state_->break_off();
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, state_->stream),
          "copying to the device");
    return wait();
  }
  if (state_->stage == nullptr) state_->stage = static_cast<std::byte*>(allocate_host(State::kStage));
  if (state_->staged + bytes > State::kStage) wait();
  std::byte* place = state_->stage + state_->staged;
  std::memcpy(place, host, bytes);
  state_->staged += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (state_->holds({WorkKind::upload})) return state_->held.add_copy(WorkKind::upload, device, place, bytes);
  check(cudaMemcpyAsync(device, place, bytes, cudaMemcpyHostToDevice, state_->stream),
        "copying to the device");
}

void Stream::copy_out(void* host, const void* device, size_t bytes) {
  state_->end_section();
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, state_->stream),
        "copying from the device");
  wait();
}

void Stream::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (state_->holds({WorkKind::copy})) return state_->held.add_copy(WorkKind::copy, to, from, bytes);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, state_->stream), "copying on the device");
}

void Stream::fill(void* device, size_t bytes, uint8_t value) {
  if (bytes == 0) return;
  if (state_->holds({WorkKind::fill})) return state_->held.add_fill(device, bytes, value);
  check(cudaMemsetAsync(device, value, bytes, state_->stream), "filling memory");
}

void Stream::wait() {
  state_->end_section();
  check(cudaStreamSynchronize(state_->stream), "a kernel failed");
  state_->staged = 0;
}

void Stream::load(void* device, const void* host, size_t bytes) {
  state_->break_off();
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, state_->stream),
        "copying to the device");
}

void Stream::store(void* host, const void* device, size_t bytes) {
  state_->break_off();
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, state_->stream),
        "copying from the device");
}

struct Event::State {
  cudaEvent_t event = nullptr;
};

Event::Event() : state_(std::make_unique<State>()) {
  check(cudaEventCreateWithFlags(&state_->event, cudaEventDisableTiming), "no event");
}

Event::~Event() {
  cudaEventDestroy(state_->event);
}

void Stream::record(Event& event) {
  state_->break_off();
  check(cudaEventRecord(event.state_->event, state_->stream), "recording an event");
}

void Stream::wait_for(const Event& event) {
  state_->break_off();
  check(cudaStreamWaitEvent(state_->stream, event.state_->event, 0), "waiting for an event");
}

void* allocate_host(size_t bytes) {
  void* p = nullptr;
  check(cudaMallocHost(&p, bytes > 0 ? bytes : 1),
        ("no room for " + std::to_string(bytes >> 20) + " MiB of pinned memory on the host").c_str(),
        ErrorKind::memory);
  std::memset(p, 0, bytes);
  return p;
}

// What is held back may name what is freed. A fault of it is told by whoever waits next.
void wait_for_all() noexcept {
  try {
    Stream::break_off_all();
  } catch (const Error&) {
  }
  cudaDeviceSynchronize();
}

void release_host(void* p) noexcept {
  if (p == nullptr) return;
  wait_for_all();
  cudaFreeHost(p);
  cudaGetLastError();
}

void* allocate_device(size_t bytes) {
  void* p = nullptr;
  const cudaError_t status = cudaMalloc(&p, bytes > 0 ? bytes : 1);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    throw Error(ErrorKind::memory, "CUDA: no room for " + std::to_string(bytes >> 20) +
                                       " MiB: " + std::to_string(free >> 20) + " of " +
                                       std::to_string(total >> 20) + " MiB are free on the device");
  }
  check(status, "allocating memory");
  note_allocated(p, bytes);
  return p;
}

void release_device(void* p) noexcept {
  if (p == nullptr) return;
  wait_for_all();
  cudaFree(p);
  note_released(p);
  cudaGetLastError();  // a fault of a kernel is told by whoever waits for it
}

DeviceBytes device_bytes() {
  std::lock_guard lock(allocated.mutex);
  return allocated.bytes;
}

}  // namespace qlora::cuda
