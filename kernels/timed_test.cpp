#include "kernels/timed.h"

#include <catch2/catch.hpp>

#include "kernels/cases/cases.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/peaks.h"

using namespace qlora;
using namespace qlora::test;

// Every case of the table, so that a kernel that is added and not passed on is found.
TEST_CASE("a timed backend gives the bits of the backend behind it and notes every kernel") {
  const std::string name = available_backends().front();
  std::unique_ptr<Backend> plain = make_test_backend(name);
  TimedBackend timed(make_test_backend(name));
  CHECK(timed.name() == plain->name());
  for (const Case& c : all_cases()) {
    INFO(c.kernel << ", " << c.shape);
    timed.reset();
    const std::vector<Array> expected = evaluate(c, *plain, DType::f32);
    const std::vector<Array> found = evaluate(c, timed, DType::f32);
    REQUIRE(found.size() == expected.size());
    for (size_t i = 0; i < found.size(); ++i) CHECK(same_bits(found[i], expected[i]));
    int64_t calls = 0;
    for (const auto& [kernel, time] : timed.times()) {
      CHECK(time.seconds >= 0);
      if (kernel.rfind("copy", 0) != 0 && kernel != "fill" && kernel != "allocate") calls += time.calls;
    }
    CHECK(calls > 0);
  }
}

TEST_CASE("a timed backend counts operations as the counting backend does") {
  TimedBackend timed(make_backend("reference"));
  std::vector<float> x(6, 1), w(12, 1), y(8);
  const Gemm a{.x = x.data(), .w = w.data(), .y = y.data(), .m = 2, .n = 4, .k = 3};
  timed.gemm(a);
  timed.gemm(a);
  const KernelTime& time = timed.times().at("gemm");
  CHECK(time.calls == 2);
  CHECK(time.flops == 2 * 2 * 2 * 4 * 3);
  CHECK(time.bytes == 2 * 4 * (6 + 12 + 8));
  CHECK(time.type == DType::f32);
  CHECK(y[7] == 3);
}

TEST_CASE("measured peaks are there and of a possible size") {
  const Peaks peaks = measure_peaks("reference");
  CHECK(peaks.read > 1e8);
  CHECK(peaks.read < 1e13);
  if (peaks.kernels.empty()) return;  // a processor without wide kernels has no peak of them
  CHECK(peaks.f32 > 1e9);
  CHECK(peaks.f32 < 1e14);
  // A processor without the instructions has no such peak.
  CHECK((peaks.bf16 > 0) == cpu_has_avx512_bf16());
  CHECK((peaks.amx > 0) == cpu_has_amx_bf16());
  for (double peak : {peaks.bf16, peaks.amx}) {
    if (peak == 0) continue;
    CHECK(peak > 1e9);
    CHECK(peak < 1e14);
  }
  // A tdpbf16ps makes 8,192 multiply-adds in sixteen cycles, where f32 makes 32 in each.
  if (peaks.amx > 0) CHECK(peaks.amx > peaks.f32);
  CHECK(measure_amx_peak("avx2") == 0);
}

TEST_CASE("products are held to the peak of the instructions that make them") {
  Peaks all, none;
  all.f32 = none.f32 = 1;
  all.bf16 = 2;
  all.amx = 8;
  CHECK(peak_of(all, Operands::as_stored) == 1);
  CHECK(peak_of(all, Operands::bf16) == 2);
  CHECK(peak_of(all, Operands::bf16_amx) == 8);
  CHECK(name_of_peak(all, Operands::bf16_amx) == "AMX peak of this run");
  for (Operands operands : kAllOperands) {
    CHECK(peak_of(none, operands) == 1);
    CHECK(name_of_peak(none, operands) == "f32 peak of this run");
  }
}

TEST_CASE("a timed backend tells products of all operands apart") {
  TimedBackend timed(make_backend("reference"));
  std::vector<float> x(6, 1), w(12, 1), y(8);
  for (Operands operands : kAllOperands)
    timed.gemm({.x = x.data(), .w = w.data(), .y = y.data(), .m = 2, .n = 4, .k = 3, .operands = operands});
  CHECK(timed.times().size() == 3);
  CHECK(timed.times().at("gemm").operands == Operands::as_stored);
  CHECK(timed.times().at("gemm bf16").operands == Operands::bf16);
  CHECK(timed.times().at("gemm bf16_amx").operands == Operands::bf16_amx);
}
