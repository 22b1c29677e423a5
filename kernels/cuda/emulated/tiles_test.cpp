// Products by tiles on tensor cores (tiles.cuh): shared memory without bank conflicts, in every layout and
// from codes. That results are right is in the case table.

#include <catch2/catch.hpp>

#include "kernels/cases/cases.h"
#include "kernels/cuda/emulated/grid.h"

using namespace qlora;
using namespace qlora::test;

TEST_CASE("CUDA products by tiles: no bank conflicts in any layout, from elements and from codes") {
  auto backend = make_backend(kEmulatedGpu);
  constexpr int64_t n = 64;
  test::Device d(*backend, DType::f32, 0, Operands::bf16);
  const void *x = d.put(normals(1, n * n)), *w = d.put(normals(2, n * n));
  void* y = d.make(n * n);
  const auto check_counters = [](const std::string& what) {
    INFO(what);
    CHECK(emulated::counters().bank_phases > 0);
    CHECK(emulated::counters().bank_conflicts == 0);
  };
  for (Layout layout : {Layout::nt, Layout::nn, Layout::tn}) {
    emulated::reset_counters();
    backend->gemm(
        {.layout = layout, .x = x, .w = w, .y = y, .m = n, .n = n, .k = n, .operands = Operands::bf16});
    backend->synchronize();
    check_counters("elements, layout " + std::to_string(static_cast<int>(layout)));
  }
  for (Format format : {Format::nf4, Format::int8}) {
    const TestWeight codes = make_weight(3, format, true, n, n);
    const WeightView view = codes.view(d);
    for (Layout layout : {Layout::nt, Layout::nn}) {
      emulated::reset_counters();
      backend->qgemm({.layout = layout, .x = x, .w = view, .y = y, .rows = n, .operands = Operands::bf16});
      backend->synchronize();
      check_counters(codes.name() + ", layout " + std::to_string(static_cast<int>(layout)));
    }
  }
}
