// States of the optimizer in host memory.

#include <catch2/catch.hpp>
#include <set>
#include <vector>

#include "kernels/cases/cases.h"
#include "kernels/cuda/emulated/schedules.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/runtime.h"

using namespace qlora;
using namespace qlora::test;

TEST_CASE("AdamW with states in host memory has the bits of states on the device") {
  for (const std::string& name : available_backends())
    for (DType type : {DType::f32, DType::f64}) {
      auto backend = make_test_backend(name);
      if (!backend->computes_in(type)) continue;
      for (int64_t steps : {1, 3}) {
        const std::vector<Array> resident = evaluate(paged_adam_case(0, steps), *backend, type);
        // Slabs of one element, of a part of a tensor, of several tensors, of all.
        for (int64_t elements : {1, 300, 1000, 1701, 100000}) {
          INFO(name << ", " << steps << " steps, " << elements << " elements");
          if (elements == 1 && steps > 1) continue;
          const auto bytes = static_cast<size_t>(4 * elements) * size_of(type);
          const std::vector<Array> paged = evaluate(paged_adam_case(bytes, steps), *backend, type);
          REQUIRE(paged.size() == resident.size());
          for (size_t i = 0; i < paged.size(); ++i) CHECK(same_bits(paged[i], resident[i]));
        }
      }
    }
}

TEST_CASE("AdamW with states in host memory has the same bits in any order of streams") {
  const std::vector<Array> resident =
      evaluate(paged_adam_case(0, 2), *make_test_backend(kEmulatedGpu), DType::f32);
  emulated::test::for_every_schedule([&] {
    auto backend = make_test_backend(kEmulatedGpu);
    const std::vector<Array> paged = evaluate(paged_adam_case(16 * 500, 2), *backend, DType::f32);
    for (size_t i = 0; i < paged.size(); ++i) CHECK(same_bits(paged[i], resident[i]));
  });
}

namespace {

using namespace qlora::cuda;

enum class Bug { none, not_loaded, not_updated, not_stored };

constexpr int kSlab = 32, kSlabs = 5;

void double_and_add(float* x) {
  x[threadIdx.x] = 2 * x[threadIdx.x] + 1;
}

// Values of the host through two slabs of the device, twice, as the optimizer's states go.
std::vector<float> through_slabs(Bug bug) {
  auto* host = static_cast<float*>(cuda::allocate_host(kSlabs * kSlab * sizeof(float)));
  for (int i = 0; i < kSlabs * kSlab; ++i) host[i] = static_cast<float>(i);
  auto* device = static_cast<float*>(allocate_device(2 * kSlab * sizeof(float)));
  {
    Stream in, work, out;
    Event loaded[2], updated[2], stored[2];
    for (int step = 0; step < 2; ++step)
      for (int s = 0; s < kSlabs; ++s) {
        const int i = s % 2;
        float *place = host + s * kSlab, *slab = device + i * kSlab;
        if (bug != Bug::not_stored) in.wait_for(stored[i]);
        in.load(slab, place, kSlab * sizeof(float));
        in.record(loaded[i]);
        if (bug != Bug::not_loaded) work.wait_for(loaded[i]);
        work.launch(double_and_add, dim3(1), dim3(kSlab), 0, slab);
        work.record(updated[i]);
        if (bug != Bug::not_updated) out.wait_for(updated[i]);
        out.store(place, slab, kSlab * sizeof(float));
        out.record(stored[i]);
      }
    out.wait();
    work.wait();
    in.wait();
  }
  std::vector<float> values(host, host + kSlabs * kSlab);
  release_device(device);
  cuda::release_host(host);
  return values;
}

}  // namespace

TEST_CASE("CUDA emulation: a stream that does not wait for another's event is caught") {
  std::vector<float> right;
  for (int i = 0; i < kSlabs * kSlab; ++i) right.push_back(4 * static_cast<float>(i) + 3);
  std::set<Bug> caught;
  emulated::test::for_every_schedule([&] {
    CHECK(through_slabs(Bug::none) == right);
    for (Bug bug : {Bug::not_loaded, Bug::not_updated, Bug::not_stored})
      if (through_slabs(bug) != right) caught.insert(bug);
  });
  CHECK(caught.size() == 3);
}
