// Copies beside the kernels, as blocks' inputs go to the host and come back (core/ops/offload.h).

#include <catch2/catch.hpp>
#include <numeric>
#include <set>
#include <vector>

#include "kernels/cases/cases.h"
#include "kernels/cuda/copies.h"
#include "kernels/cuda/emulated/schedules.h"
#include "kernels/cuda/kernels.h"

using namespace qlora;
using namespace qlora::test;

namespace {

constexpr int64_t kBlocks = 5, kWidth = 40;
constexpr size_t kBytes = kWidth * sizeof(float);

// What a walk asks of a backend, and of its copies that may lack something.
struct Calls {
  std::function<void(const Add&)> add;
  std::function<void(void*, const void*, CopyKind)> copy_beside;
  std::function<void(CopyKind)> await;  // of copies that way
};

// Every block doubles its input, whose place the block after it takes; backward adds all inputs up, the last
// first, each loaded while the one above it is added. `room`: three times kWidth elements, the first third
// the first input, the last third zeros and then the sum.
void walk(const Calls& calls, float* room, float* host) {
  float* slabs[2] = {room, room + kWidth};
  float* sum = room + 2 * kWidth;
  for (int64_t k = 0; k < kBlocks; ++k) {
    const float* x = slabs[k % 2];
    calls.copy_beside(host + k * kWidth, x, CopyKind::device_to_host);
    calls.add({.a = x, .b = x, .y = slabs[(k + 1) % 2], .n = kWidth});
    calls.await(CopyKind::device_to_host);
  }
  auto load = [&](int64_t k) {
    calls.copy_beside(slabs[k % 2], host + k * kWidth, CopyKind::host_to_device);
  };
  load(kBlocks - 1);
  for (int64_t k = kBlocks - 1; k >= 0; --k) {
    calls.await(CopyKind::host_to_device);
    if (k > 0) load(k - 1);
    calls.add({.a = sum, .b = slabs[k % 2], .y = sum, .n = kWidth});
  }
}

std::vector<float> start() {
  std::vector<float> room(3 * kWidth, 0.0f);
  std::iota(room.begin(), room.begin() + kWidth, 1.0f);
  return room;
}

std::vector<float> right_sum() {
  std::vector<float> sum(kWidth);
  std::iota(sum.begin(), sum.end(), 1.0f);
  for (float& v : sum) v *= (1 << kBlocks) - 1;
  return sum;
}

std::vector<float> walk_on(Backend& backend) {
  const std::vector<float> first = start();
  std::vector<float> sum(kWidth);
  auto* room = static_cast<float*>(backend.allocate(3 * kBytes));
  auto* host = static_cast<float*>(backend.allocate_host(kBlocks * kBytes));
  backend.copy(room, first.data(), 3 * kBytes, CopyKind::host_to_device);
  walk({[&](const Add& a) { backend.add(a); },
        [&](void* to, const void* from, CopyKind kind) { backend.copy_beside(to, from, kBytes, kind); },
        [&](CopyKind) { backend.await_copies(); }},
       room, host);
  backend.copy(sum.data(), room + 2 * kWidth, kBytes, CopyKind::device_to_host);
  backend.release_host(host, kBlocks * kBytes);
  backend.release(room, 3 * kBytes);
  return sum;
}

}  // namespace

TEST_CASE(
    "Copies beside the kernels bring what was there when they were asked for, to calls that wait for them") {
  for (const std::string& name : available_backends()) {
    INFO(name);
    CHECK(walk_on(*make_test_backend(name)) == right_sum());
  }
  emulated::test::for_every_schedule([] { CHECK(walk_on(*make_test_backend(kEmulatedGpu)) == right_sum()); });
}

TEST_CASE("A copy to host memory is there for the host after synchronize()") {
  for (const std::string& name : available_backends()) {
    auto backend = make_test_backend(name);
    auto* p = backend->allocate(kBytes);
    auto* host = static_cast<uint8_t*>(backend->allocate_host(kBytes));
    backend->fill(p, kBytes, 7);
    backend->copy_beside(host, p, kBytes, CopyKind::device_to_host);
    backend->copy_beside(host, p, 0, CopyKind::device_to_host);
    backend->synchronize();
    CHECK(std::vector<uint8_t>(host, host + kBytes) == std::vector<uint8_t>(kBytes, 7));
    backend->release_host(host, kBytes);
    backend->release(p, kBytes);
  }
}

namespace {

enum class Bug {
  none,
  stored_too_early,  // the copy to the host does not wait for what it copies
  reused_too_early,  // nor the calls that write there for the copy
  loaded_too_early,  // the copy back does not wait for those that read what lay there
  read_too_early,    // nor those that read it for the copy
};

// As copies.cu, but for the bug.
std::vector<float> walk_with(Bug bug) {
  using namespace qlora::cuda;
  const std::vector<float> first = start();
  std::vector<float> sum(kWidth);
  auto* room = static_cast<float*>(allocate_device(3 * kBytes));
  auto* host = static_cast<float*>(cuda::allocate_host(kBlocks * kBytes));
  {
    cuda::Device d;
    Copies copies;
    d.stream.copy_in(room, first.data(), 3 * kBytes);
    auto copy_beside = [&](void* to, const void* from, CopyKind kind) {
      const bool loads = kind == CopyKind::host_to_device;
      d.stream.record(copies.before);
      if (bug != (loads ? Bug::loaded_too_early : Bug::stored_too_early))
        copies.stream.wait_for(copies.before);
      loads ? copies.stream.load(to, from, kBytes) : copies.stream.store(to, from, kBytes);
      copies.stream.record(copies.done);
    };
    auto await = [&](CopyKind kind) {
      const bool loads = kind == CopyKind::host_to_device;
      if (bug != (loads ? Bug::read_too_early : Bug::reused_too_early)) d.stream.wait_for(copies.done);
    };
    walk({[&](const Add& a) { cuda::add(d, a); }, copy_beside, await}, room, host);
    d.stream.copy_out(sum.data(), room + 2 * kWidth, kBytes);
    copies.stream.wait();
  }
  cuda::release_host(host);
  release_device(room);
  return sum;
}

}  // namespace

TEST_CASE("CUDA emulation: a copy beside the kernels that somebody does not wait for is caught") {
  std::set<Bug> caught;
  emulated::test::for_every_schedule([&] {
    CHECK(walk_with(Bug::none) == right_sum());
    for (Bug bug : {Bug::stored_too_early, Bug::reused_too_early, Bug::loaded_too_early, Bug::read_too_early})
      if (walk_with(bug) != right_sum()) caught.insert(bug);
  });
  CHECK(caught.size() == 4);
}
