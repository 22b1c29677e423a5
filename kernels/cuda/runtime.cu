// Device memory and streams of CUDA.

#include "kernels/cuda/runtime.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "core/base/error.h"
#include "kernels/cuda/blas.h"

namespace qlora::cuda {
namespace {

void check(cudaError_t status, const char* what, ErrorKind kind = ErrorKind::failure) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // what is reported here is not the next call's
  throw Error(kind, std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

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
};

Stream::Stream() : state_(std::make_shared<State>()) {
  check(cudaStreamCreateWithFlags(&state_->stream, cudaStreamNonBlocking), "no stream");
}

Stream::~Stream() {
  cudaStreamSynchronize(state_->stream);
  release_host(state_->stage);
  cudaStreamDestroy(state_->stream);
}

cudaStream_t Stream::handle() const {
  return state_->stream;
}

void* Stream::raw() {
  return state_->stream;
}

FoundBlas find_blas() {
  return find_blas_library();
}

void Stream::allow_shared(const void* kernel, size_t bytes) {
  constexpr size_t kWithoutAsking = size_t{48} << 10;
  if (bytes > kWithoutAsking)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "shared memory of a block");
}

void Stream::check_launch() {
  check(cudaGetLastError(), "launching a kernel");
}

void Stream::copy_in(void* device, const void* host, size_t bytes) {
  constexpr size_t kAlignment = 256;
  const void* from = host;
  const bool small = bytes <= State::kStage / 8;
  if (small) {
    if (state_->stage == nullptr) state_->stage = static_cast<std::byte*>(allocate_host(State::kStage));
    if (state_->staged + bytes > State::kStage) {
      wait();
      state_->staged = 0;
    }
    std::byte* place = state_->stage + state_->staged;
    std::memcpy(place, host, bytes);
    state_->staged += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    from = place;
  }
  check(cudaMemcpyAsync(device, from, bytes, cudaMemcpyHostToDevice, state_->stream),
        "copying to the device");
  if (!small) wait();
}

void Stream::copy_out(void* host, const void* device, size_t bytes) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, state_->stream),
        "copying from the device");
  wait();
}

void Stream::copy(void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, state_->stream), "copying on the device");
}

void Stream::fill(void* device, size_t bytes, uint8_t value) {
  check(cudaMemsetAsync(device, value, bytes, state_->stream), "filling memory");
}

void Stream::wait() {
  check(cudaStreamSynchronize(state_->stream), "a kernel failed");
}

void Stream::load(void* device, const void* host, size_t bytes) {
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, state_->stream),
        "copying to the device");
}

void Stream::store(void* host, const void* device, size_t bytes) {
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
  check(cudaEventRecord(event.state_->event, state_->stream), "recording an event");
}

void Stream::wait_for(const Event& event) {
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

void release_host(void* p) noexcept {
  if (p == nullptr) return;
  cudaDeviceSynchronize();
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
  cudaDeviceSynchronize();
  cudaFree(p);
  note_released(p);
  cudaGetLastError();  // a fault of a kernel is told by whoever waits for it
}

DeviceBytes device_bytes() {
  std::lock_guard lock(allocated.mutex);
  return allocated.bytes;
}

}  // namespace qlora::cuda
