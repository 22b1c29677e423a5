// The case table on the device that QLORA_CASES_BACKEND names (cuda, or the emulation by default): what
// scripts/gpu_check.sh runs where there is a GPU. QLORA_CASES_EVERY=n takes every n-th case only: with it
// ctest runs these tests on the emulation, so that they stay as good as parity_test.cpp.

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

std::vector<Case> chosen_cases() {
  const char* every = std::getenv("QLORA_CASES_EVERY");
  const size_t n = every == nullptr ? 1 : std::stoul(every);
  std::vector<Case> chosen;
  const std::vector<Case> all = all_cases();
  for (size_t i = 0; i < all.size(); i += n) chosen.push_back(all[i]);
  return chosen;
}

}  // namespace

TEST_CASE("The device of a GPU agrees with the reference in f64", "[.device]") {
  auto backend = make_test_backend(device_name());
  auto oracle = make_backend("reference");
  for (const Case& c : chosen_cases()) {
    INFO(c.kernel << " " << c.shape);
    CHECK(Bound(c, *oracle).worst(evaluate(c, *backend, DType::f32)) <= 1);
  }
}

TEST_CASE("The device of a GPU has the same bits again and at any alignment", "[.device]") {
  auto backend = make_test_backend(device_name());
  for (const Case& c : chosen_cases()) {
    INFO(c.kernel << " " << c.shape);
    const std::vector<Array> first = evaluate(c, *backend, DType::f32);
    for (int64_t offset : {0, 1, 3}) CHECK(same_bits(evaluate(c, *backend, DType::f32, offset), first));
  }
}

// For compute-sanitizer: the kernels of the case table, and nothing beside.
TEST_CASE("The device of a GPU runs every case", "[.device]") {
  auto backend = make_test_backend(device_name());
  for (const Case& c : chosen_cases()) evaluate(c, *backend, DType::f32, 1);
}
