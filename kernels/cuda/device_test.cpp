// The case table on the device that QLORA_CASES_BACKEND names (cuda, or the emulation by default): what
// scripts/gpu_check.sh runs where there is a GPU.

#include <catch2/catch.hpp>
#include <cstdlib>

#include "kernels/cases/bound.h"
#include "kernels/cases/cases.h"

using namespace qlora;
using namespace qlora::test;

namespace {

std::string device_name() {
  const char* chosen = std::getenv("QLORA_CASES_BACKEND");
  return chosen == nullptr ? kEmulatedGpu : chosen;
}

}  // namespace

TEST_CASE("The device of a GPU agrees with the reference in f64", "[.device]") {
  auto backend = make_test_backend(device_name());
  auto oracle = make_backend("reference");
  for (const Case& c : all_cases()) {
    INFO(c.kernel << " " << c.shape);
    CHECK(Bound(c, *oracle).worst(evaluate(c, *backend, DType::f32)) <= 1);
  }
}

TEST_CASE("The device of a GPU has the same bits again and at any alignment", "[.device]") {
  auto backend = make_test_backend(device_name());
  for (const Case& c : all_cases()) {
    INFO(c.kernel << " " << c.shape);
    const std::vector<Array> first = evaluate(c, *backend, DType::f32);
    for (int64_t offset : {0, 1, 3}) CHECK(same_bits(evaluate(c, *backend, DType::f32, offset), first));
  }
}

// For compute-sanitizer: every kernel, and nothing beside.
TEST_CASE("The device of a GPU runs every case", "[.device]") {
  auto backend = make_test_backend(device_name());
  for (const Case& c : all_cases()) evaluate(c, *backend, DType::f32, 1);
}
