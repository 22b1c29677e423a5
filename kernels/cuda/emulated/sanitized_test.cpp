// The case table on an emulation built with AddressSanitizer and UBSan, or with ThreadSanitizer, which
// reports the races between the threads of a block: what barriers and warp operations do not order. And bugs
// that only these see, in hidden tests of which ctest expects the report.

#include <catch2/catch.hpp>
#include <cmath>

#include "core/base/test_turns.h"
#include "kernels/cases/cases.h"
#include "kernels/cuda/backend.h"
#include "kernels/cuda/emulated/chosen.h"
#include "kernels/cuda/emulated/fiber.h"
#include "kernels/cuda/runtime.h"

// Vectors of the rest of the program, which is not instrumented, grow without AddressSanitizer knowing.
extern "C" const char* __asan_default_options() {
  return "detect_container_overflow=0:detect_leaks=0";
}
// Catch2 reports signals itself.
extern "C" const char* __tsan_default_options() {
  return "halt_on_error=0:exitcode=66";
}

using namespace qlora;
using namespace qlora::cuda;
using namespace qlora::test;

namespace {

// Far outside what rounding explains (parity_test.cpp holds the bounds): here only gross errors matter.
double worst_error(const std::vector<Array>& a, const std::vector<Array>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[i].size(); ++j) {
      const double error = std::abs(a[i][j] - b[i][j]) / (1 + std::abs(b[i][j]));
      if (!(error <= worst)) worst = error;
    }
  return worst;
}

}  // namespace

TEST_CASE("CUDA emulation under sanitizers: many rows by tiles, without cuBLAS") {
  if (emulated::races_are_watched()) return;  // the table's exact products of few rows are the same kernels
  emulated::test::Chosen off("QLORA_CUBLAS", "off");
  auto backend = cuda::make_backend();
  auto oracle = qlora::make_backend("reference");
  for (const Case& c : linear_cases()) {
    if (!c.shape.starts_with("many rows") || c.operands != Operands::bf16) continue;
    INFO(c.kernel << " " << c.shape);
    CHECK(worst_error(evaluate(c, *backend, DType::f32, 1), evaluate(c, *oracle, DType::f32)) < 0.05);
  }
}

TEST_CASE("CUDA emulation under sanitizers: the case table") {
  auto backend = cuda::make_backend();
  auto oracle = qlora::make_backend("reference");
  // ThreadSanitizer takes a second where the others take a hundredth: it gets every fifth case, in five days
  // all.
  const std::vector<Case> cases = all_cases();
  const size_t step = emulated::races_are_watched() ? 5 : 1;
  for (size_t i = turn() % step; i < cases.size(); i += step) {
    const Case& c = cases[i];
    INFO(c.kernel << " " << c.shape);
    CHECK(worst_error(evaluate(c, *backend, DType::f32, 1), evaluate(c, *oracle, DType::f32)) < 0.05);
  }
}

namespace {

struct Shared {
  float values[64];
};

void run(void (*kernel)(const float*, float*)) {
  Stream stream;
  auto* in = static_cast<float*>(allocate_device(65 * sizeof(float)));
  auto* out = static_cast<float*>(allocate_device(65 * sizeof(float)));
  stream.fill(in, 65 * sizeof(float), 0);
  stream.launch(kernel, dim3(1), dim3(64), sizeof(Shared), in, out);
  stream.wait();
  release_device(in);
  release_device(out);
}

}  // namespace

TEST_CASE("CUDA emulation under sanitizers: a read of four bytes beside a buffer", "[.planted-read]") {
  run(+[](const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 2]; });
}

TEST_CASE("CUDA emulation under sanitizers: a vector at an unaligned address", "[.planted-vector]") {
  run(+[](const float* in, float* out) {
    if (threadIdx.x < 8) reinterpret_cast<float2*>(out + 1)[threadIdx.x] = make_float2(in[0], in[1]);
  });
}

TEST_CASE("CUDA emulation under sanitizers: an index beside an array in shared memory", "[.planted-shared]") {
  run(+[](const float* in, float* out) {
    shared_as<Shared>().values[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = (&shared_as<Shared>().values[0])[threadIdx.x + (out != nullptr ? 1 : 0)];
  });
}

TEST_CASE("CUDA emulation under sanitizers: a missing barrier", "[.planted-race]") {
  run(+[](const float* in, float* out) {
    auto& s = shared_as<Shared>();
    s.values[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = s.values[63 - threadIdx.x];
  });
}
