#include "kernels/device_scratch.h"

#include <catch2/catch.hpp>

#include "kernels/cases/cases.h"
#include "kernels/cuda/emulated/grid.h"

using namespace qlora;
using namespace qlora::test;

namespace {

void run_on(Backend& backend, const Case& c) {
  Device device(backend, DType::f32, 0, c.operands);
  c.run(device, c.inputs);
}

}  // namespace

TEST_CASE("No CUDA kernel keeps more memory of a device for itself than is planned for it") {
  double planned = 0, taken = 0;
  // Of the kernels that keep anything. The emulation is slow: some cases of each.
  std::vector<Case> cases = linear_cases();
  for (const std::vector<Case>& more : {attention_cases(), row_cases(), learning_cases()})
    cases.insert(cases.end(), more.begin(), more.end());
  cases = with_bf16_operands(std::move(cases));
  for (size_t i = 0; i < cases.size(); i += 5) {
    const Case& c = cases[i];
    auto counting = make_counting_backend(CountedKernels::cuda);
    auto backend = make_test_backend(kEmulatedGpu);
    const size_t before = emulated::device_bytes();
    run_on(*counting, c);
    run_on(*backend, c);
    backend->synchronize();
    const size_t took = emulated::device_bytes() - before;
    const size_t need = counting->scratch_bytes() + counting->slab_bytes();
    INFO(c.kernel << " " << c.shape);
    CHECK(took <= need);
    planned += static_cast<double>(need);
    taken += static_cast<double>(took);
  }
  CHECK(planned < 3 * taken);
}
