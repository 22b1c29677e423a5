#include "core/ops/offload.h"

#include <catch2/catch.hpp>

#include "core/base/philox.h"
#include "kernels/cuda/emulated/schedules.h"

using namespace qlora;

namespace {

constexpr int64_t kBlocks = 6, kCols = 24;
constexpr size_t kRowBytes = kCols * sizeof(float);

Tensor random(Memory& memory, uint64_t seed, int64_t rows) {
  PhiloxStream stream(seed);
  std::vector<float> v(static_cast<size_t>(rows * kCols));
  for (float& x : v) x = stream.uniform();
  return Tensor::from_floats(memory, {rows, kCols}, DType::f32, v);
}

// Puts tensors away one by one, each let go of when the next is there, and takes them back.
void walk(Backend& backend) {
  Memory memory(backend);
  for (int64_t rows : {3, 11, 7}) {
    auto offload = std::make_shared<Offload>(memory);
    std::vector<std::vector<float>> put;
    for (int64_t k = 0; k < kBlocks; ++k) {
      const Tensor x = random(memory, static_cast<uint64_t>(100 * rows + k), rows);
      CHECK(offload->put(x) == static_cast<size_t>(k));
      put.push_back(x.to_floats());
      offload->settle();
    }
    const size_t one = static_cast<size_t>(rows) * kRowBytes;
    CHECK(memory.used() == 0);
    CHECK(memory.host_used() == kBlocks * one);
    memory.reset_peak();
    for (size_t k = kBlocks; k-- > 0;) {
      if (k == 2) continue;  // its gradient is not wanted
      const Tensor x = offload->take(k);
      CHECK(memory.used() == (k > 0 ? 2 * one : one));
      const Tensor other = random(memory, 1, rows);  // nothing else has x's place, nor that of what is coming
      CHECK(x.to_floats() == put[k]);
    }
    CHECK(memory.peak() == 3 * one);
    CHECK(memory.host_used() == 0);
  }
}

}  // namespace

TEST_CASE(
    "What goes to the host comes back with its bits, the last first, and two at most are on the device") {
  emulated::test::for_every_schedule([] { walk(*make_backend("cuda-emulated")); });
  walk(*make_backend("reference"));
}

TEST_CASE("What is on its way from the host writes to nobody else's memory when it is no longer wanted") {
  emulated::test::for_every_schedule([] {
    auto backend = make_backend("cuda-emulated");
    Memory memory(*backend);
    Tensor taken;
    {
      Offload offload(memory);
      for (uint64_t k = 0; k < 3; ++k) offload.put(random(memory, k, 5));
      offload.settle();
      taken = offload.take(2);
    }
    const Tensor other = random(memory, 9, 5);
    CHECK(other.to_floats() == random(memory, 9, 5).to_floats());
    CHECK(taken.to_floats() == random(memory, 2, 5).to_floats());
    CHECK(memory.host_used() == 0);
  });
}

TEST_CASE("Nothing goes to the host where one computes there, and where nothing is recorded") {
  auto host = make_backend("reference");
  auto gpu = make_counting_backend(CountedKernels::cuda);
  Memory on_host(*host), on_gpu(*gpu);
  Tape tape;
  Context c{.backend = *gpu, .memory = on_gpu, .tape = &tape, .checkpointing = Checkpointing::offload};
  CHECK(make_offload(c) != nullptr);
  c.checkpointing = Checkpointing::block;
  CHECK(make_offload(c) == nullptr);
  c.checkpointing = Checkpointing::offload;
  c.tape = nullptr;
  CHECK(make_offload(c) == nullptr);
  const Context plain{
      .backend = *host, .memory = on_host, .tape = &tape, .checkpointing = Checkpointing::offload};
  CHECK(make_offload(plain) == nullptr);
}
