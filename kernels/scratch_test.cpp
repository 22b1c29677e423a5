#include "kernels/scratch.h"

#include <catch2/catch.hpp>
#include <thread>

#include "core/base/parallel.h"
#include "kernels/cases/cases.h"
#include "kernels/reference/reference.h"

using namespace qlora;
using namespace qlora::test;

namespace {

void run_on(Backend& backend, const Case& c) {
  Device device(backend, DType::f32, 0, c.operands);
  c.run(device, c.inputs);
}

}  // namespace

TEST_CASE("No kernel keeps more memory for itself than is planned for it") {
  const int before = thread_count();
  set_thread_count(1);  // all buffers are those of the thread that asks
  double planned = 0, taken = 0;
  for (const std::string& name : available_backends()) {
    if (!make_test_backend(name)->host_memory()) continue;  // a GPU's buffers are its own affair
    for (const Case& c : with_bf16_operands(all_cases())) {
      auto counting = make_counting_backend();
      run_on(*counting, c);
      size_t took = 0;
      std::thread([&] {  // a thread that has no buffers yet
        auto backend = make_test_backend(name);
        auto& kernels = dynamic_cast<Reference&>(*backend);
        const size_t had = kernels.scratch_bytes();
        run_on(*backend, c);
        took = kernels.scratch_bytes() - had;
      })
          .join();
      INFO(name << " " << c.kernel << " " << c.shape);
      CHECK(took <= counting->scratch_bytes());
      if (name != "reference") planned += static_cast<double>(counting->scratch_bytes());
      taken += static_cast<double>(took);
    }
  }
  set_thread_count(before);
  CHECK(planned < 2.25 * taken);
}
