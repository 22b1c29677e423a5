// dequantize and quantize: NF4 with double quantization to bf16, and f32 to NF4, on one thread.

#include <cmath>

#include "core/base/check.h"
#include "core/base/half.h"
#include "core/base/parallel.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/operands.h"
#include "kernels/quant/encode.h"
#include "kernels/quant/tables.h"

namespace qlora::bench {
namespace {

struct Size {
  const char* name;
  int64_t out, in;
  double goal;
};
// 8 MB of bf16 fit into a last-level cache; 90 MB do not.
constexpr Size kSizes[] = {{"cache", 2048, 2048, 4.5}, {"memory", 11008, 4096, 2}};

Row dequantize(Bench& bench, const std::string& name, const Size& size) {
  Memory memory(bench.backend());
  QuantConfig config{.format = Format::nf4, .double_quant = true};
  const int64_t n = size.out * size.in;
  auto weight = quantize(memory, "w", size.out, size.in, random_floats(n, 1), config, DType::f32);
  // Where the program's tensors lie: what is long goes past the caches (codec-inl.h).
  const Tensor out(memory, {n}, DType::bf16);
  const std::span found(out.as<bf16>(), static_cast<size_t>(n));
  std::vector<bf16> expected(found.size());
  bench.oracle().dequantize({.w = weight->view(), .dst = expected.data(), .type = DType::bf16});
  auto body = [&] {
    bench.backend().dequantize({.w = weight->view(), .dst = out.data(), .type = DType::bf16});
  };
  body();
  for (size_t i = 0; i < found.size(); ++i)
    if (found[i].bits != expected[i].bits)
      return missing_row(name, "GB/s", 1, fmt::format("WRONG, not timed: element {} differs", i));
  Row row = single_row(name, "GB/s", 2e-9 * static_cast<double>(n), time_of(body, bench.kernel_effort()), 1);
  row.goal = size.goal;
  row.against = "bitsandbytes' CPU library (scripts/bench.sh --with-hf)";
  return row;
}

// The first element whose code is not that of the nearest level, or -1. Looks at every 61st of them.
int64_t first_wrong_code(std::span<const float> w, const uint8_t* codes, const float* absmax) {
  for (size_t i = 0; i < w.size(); i += 61) {
    const int code = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
    auto distance = [&](int c) { return std::abs(Nf4::level(c) * absmax[i / 64] - w[i]); };
    for (int c = 0; c < 16; ++c)  // within rounding: neither of two equally near ones is wrong
      if (distance(c) < distance(code) - 1e-6f) return static_cast<int64_t>(i);
  }
  return -1;
}

Row quantize_row(Bench& bench, const std::string& name, const Size& size) {
  const int64_t n = size.out * size.in;
  const std::vector<float> w = random_floats(n, 1);
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(Format::nf4, n)));
  std::vector<float> absmax(static_cast<size_t>(block_count(n, 64)));
  auto body = [&] { encode(Format::nf4, w, 64, codes.data(), absmax.data()); };
  body();
  if (int64_t i = first_wrong_code(w, codes.data(), absmax.data()); i >= 0)
    return missing_row(name, "GB/s", 1, fmt::format("WRONG, not timed: element {} is not the nearest", i));
  Row row = single_row(name, "GB/s", 4e-9 * static_cast<double>(n), time_of(body, bench.kernel_effort()), 1);
  row.goal = 80;
  row.against = "bitsandbytes' CPU path (scripts/bench.sh --with-hf)";
  return row;
}

}  // namespace

void codec_rows(Bench& bench) {
  if (!bench.wants_any("dequantize") && !bench.wants_any("quantize")) return;
  set_thread_count(1);
  for (const Size& size : kSizes) {
    const std::string name = fmt::format("dequantize/{}/{}x{}/t1", size.name, size.out, size.in);
    if (bench.wants(name)) bench.emit(dequantize(bench, name, size));
  }
  for (const Size& size : kSizes) {
    const std::string name = fmt::format("quantize/{}/{}x{}/t1", size.name, size.out, size.in);
    if (bench.wants(name)) bench.emit(quantize_row(bench, name, size));
  }
  set_thread_count(bench.most_threads());
}

}  // namespace qlora::bench
