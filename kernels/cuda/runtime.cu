// Device memory and streams of CUDA.

#include "kernels/cuda/runtime.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/graph.h"
#include "kernels/cuda/holding.h"

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

namespace {

// The device's side of a stream.
struct Queue {
  using Work = HeldWork;
  cudaStream_t stream = nullptr;
  std::array<Graph, Repeats::kSections> graphs = {};

  void issue(const HeldWork& work) { work.issue(stream); }
  bool whole(int section, HeldWork& work) {
    try {
      graphs[static_cast<size_t>(section)].launch(work, stream);
      return true;
    } catch (const Error& e) {
      std::fprintf(stderr, "qlora: kernels go to the GPU one by one, not as graphs: %s\n", e.what());
    }
    work.issue(stream);
    return false;
  }
};

}  // namespace

// `stage`: memory of the host from which the device copies while the caller goes on, made when it is first
// needed. When it is full, all that it holds is waited for.
struct Stream::State {
  static constexpr size_t kStage = size_t{4} << 20;
  Queue queue = {};
  Holding<Queue> holding{queue, graphs_asked().value_or(Graphs::where_faster)};
  std::byte* stage = nullptr;
  size_t staged = 0;
  std::map<const void*, size_t> shared_asked = {};  // of kernels, more than they have without asking
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
  for (Stream* stream : streams.all) stream->break_off();
}

Stream::Stream() : state_(std::make_shared<State>()) {
  check(cudaStreamCreateWithFlags(&state_->queue.stream, cudaStreamNonBlocking), "no stream");
  std::lock_guard lock(streams.mutex);
  streams.all.push_back(this);
}

Stream::~Stream() {
  {
    std::lock_guard lock(streams.mutex);
    std::erase(streams.all, this);
  }
  state_->holding.forget();
  cudaStreamSynchronize(state_->queue.stream);
  release_host(state_->stage);
  cudaStreamDestroy(state_->queue.stream);
}

void* Stream::raw() {
  return state_->queue.stream;
}

void Stream::break_off() {
  state_->holding.break_off();
}

FoundBlas find_blas() {
  return find_blas_library();
}

void Stream::launch(const KernelCall& call) {
  constexpr size_t kWithoutAsking = size_t{48} << 10;
  if (call.shared > kWithoutAsking && state_->shared_asked[call.kernel] < call.shared) {
    check(cudaFuncSetAttribute(call.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(call.shared)),
          "shared memory of a block");
    state_->shared_asked[call.kernel] = call.shared;
  }
  if (HeldWork* held = state_->holding.next(call.piece())) return held->add(call);
  check(cudaLaunchKernel(call.kernel, call.grid, call.block, const_cast<void**>(call.arguments), call.shared,
                         state_->queue.stream),
        "launching a kernel");
}

void Stream::copy_in(void* device, const void* host, size_t bytes) {
  constexpr size_t kAlignment = 256;
  if (bytes == 0) return;
  if (bytes > State::kStage / 8) {
    break_off();
    check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, state_->queue.stream),
          "copying to the device");
    return wait();
  }
  if (state_->stage == nullptr) state_->stage = static_cast<std::byte*>(allocate_host(State::kStage));
  if (state_->staged + bytes > State::kStage) wait();
  std::byte* place = state_->stage + state_->staged;
  std::memcpy(place, host, bytes);
  state_->staged += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const WorkPiece piece{WorkKind::upload, nullptr, bytes};
  if (HeldWork* held = state_->holding.next(piece)) return held->add_copy(piece, device, place, bytes);
  check(cudaMemcpyAsync(device, place, bytes, cudaMemcpyHostToDevice, state_->queue.stream),
        "copying to the device");
}

void Stream::copy_out(void* host, const void* device, size_t bytes) {
  state_->holding.end_section();
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, state_->queue.stream),
        "copying from the device");
  wait();
}

void Stream::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  const WorkPiece piece{WorkKind::copy, nullptr, bytes};
  if (HeldWork* held = state_->holding.next(piece)) return held->add_copy(piece, to, from, bytes);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, state_->queue.stream),
        "copying on the device");
}

void Stream::fill(void* device, size_t bytes, uint8_t value) {
  if (bytes == 0) return;
  const WorkPiece piece{WorkKind::fill, nullptr, bytes};
  if (HeldWork* held = state_->holding.next(piece)) return held->add_fill(piece, device, bytes, value);
  check(cudaMemsetAsync(device, value, bytes, state_->queue.stream), "filling memory");
}

void Stream::call(WorkPiece piece, std::span<const int64_t> numbers, std::function<void()> call) {
  if (HeldWork* held = state_->holding.next(piece)) return held->add_call(piece, numbers, std::move(call));
  call();
}

void Stream::wait() {
  state_->holding.end_section();
  check(cudaStreamSynchronize(state_->queue.stream), "a kernel failed");
  state_->holding.done();
  state_->staged = 0;
}

void Stream::load(void* device, const void* host, size_t bytes) {
  break_off();
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, state_->queue.stream),
        "copying to the device");
}

void Stream::store(void* host, const void* device, size_t bytes) {
  break_off();
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, state_->queue.stream),
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
  break_off();
  check(cudaEventRecord(event.state_->event, state_->queue.stream), "recording an event");
}

void Stream::wait_for(const Event& event) {
  break_off();
  check(cudaStreamWaitEvent(state_->queue.stream, event.state_->event, 0), "waiting for an event");
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
