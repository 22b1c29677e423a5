// What the kernels of a GPU reach, as shares of what the same run measures of the device. Times are the
// wall's, around enough calls to fill a fifth of a second; medians of five. Every kernel is checked by the
// case table first (scripts/gpu_check.sh runs it before this).
//
//     qlora_device_bench [BACKEND] [--quick]        default: cuda; quick: sizes for the emulation

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "core/base/philox.h"
#include "kernels/backend.h"
#include "kernels/devices.h"
#include "kernels/quant/double_quant.h"
#include "kernels/quant/dynamic8.h"

namespace qlora {
namespace {

constexpr double kGiga = 1e-9, kTera = 1e-12;

class Bench {
 public:
  Bench(Backend& backend, bool quick) : backend_(backend), quick_(quick) {}
  ~Bench() {
    for (auto [p, bytes] : blocks_) backend_.release(p, bytes);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Backend& backend() { return backend_; }
  bool quick() const { return quick_; }

  // Room for results.
  float* results(int64_t n) { return static_cast<float*>(room(static_cast<size_t>(n) * sizeof(float))); }
  // Values in [-1, 1] on the device.
  float* floats(int64_t n) {
    PhiloxStream random(static_cast<uint64_t>(blocks_.size()));
    std::vector<float> values(static_cast<size_t>(n));
    for (float& v : values) v = 2 * random.uniform() - 1;
    return put(values.data(), values.size());
  }
  template <class T>
  T* put(const T* host, size_t n) {
    void* p = room(n * sizeof(T));
    backend_.copy(p, host, n * sizeof(T), CopyKind::host_to_device);
    return static_cast<T*>(p);
  }
  void* room(size_t bytes) {
    blocks_.emplace_back(backend_.allocate(bytes), bytes);
    return blocks_.back().first;
  }

  // Seconds of one call, the median of five rounds.
  double seconds(const std::function<void(int)>& call) {
    int calls = 0;
    auto round = [&](int n) {
      backend_.synchronize();
      const auto start = std::chrono::steady_clock::now();
      for (int i = 0; i < n; ++i) call(calls++);
      backend_.synchronize();
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / n;
    };
    const double first = round(1);
    const int n = quick_ ? 1 : std::clamp(static_cast<int>(0.2 / std::max(first, 1e-6)), 1, 10000);
    std::vector<double> rounds;
    for (int i = 0; i < (quick_ ? 1 : 5); ++i) rounds.push_back(round(n));
    std::sort(rounds.begin(), rounds.end());
    return rounds[rounds.size() / 2];
  }

  // The share of a rate that took `ceiling` seconds; none where that is not known.
  static double of(double ceiling, double seconds) { return ceiling > 0 ? ceiling / seconds : NAN; }
  void row(const std::string& name, double value, const char* unit, double share = NAN, const char* of = "") {
    if (std::isnan(share)) {
      fmt::print("{:<44} {:>10.4g} {}\n", name, value, unit);
    } else {
      fmt::print("{:<44} {:>10.4g} {:<10} {:.2f} of {}\n", name, value, unit, share, of);
    }
    std::fflush(stdout);
  }

 private:
  Backend& backend_;
  bool quick_;
  std::vector<std::pair<void*, size_t>> blocks_;
};

// A matrix with double-quantized scales; random codes are as good as those of a model.
WeightView coded(Bench& b, Format format, int64_t out, int64_t in) {
  constexpr int64_t kBlock = 64;
  PhiloxStream random(7);
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(format, out * in)));
  for (uint8_t& c : codes) c = static_cast<uint8_t>(random.next());
  std::vector<float> absmax(static_cast<size_t>(block_count(out * in, kBlock)));
  for (float& a : absmax) a = 0.02f + 0.01f * random.uniform();
  const NestedScales nested = nest_scales(absmax);
  WeightView w{
      .format = format, .out = out, .in = in, .data = b.put(codes.data(), codes.size()), .block = kBlock};
  w.absmax_codes = b.put(nested.codes.data(), nested.codes.size());
  w.nested_absmax = b.put(nested.absmax.data(), nested.absmax.size());
  w.code_map = b.put(signed_dynamic_map().data(), signed_dynamic_map().size());
  w.nested_offset = nested.offset;
  return w;
}

// Bytes a second of copying on the device, read and written.
double copy_rate(Bench& b) {
  const size_t bytes = b.quick() ? size_t{1} << 16 : size_t{1} << 30;
  void *from = b.room(bytes), *to = b.room(bytes);
  b.backend().fill(from, bytes, 1);
  const double rate = 2 * static_cast<double>(bytes) /
                      b.seconds([&](int) { b.backend().copy(to, from, bytes, CopyKind::device_to_device); });
  b.row("copy on the device", rate * kGiga, "GB/s");
  return rate;
}

// Bytes of codes and scales.
double coded_bytes(Format format, int64_t n) {
  return static_cast<double>(packed_bytes(format, n)) + static_cast<double>(n) * (1.0 / 64 + 1.0 / 4096);
}

// Several matrices in turn, together larger than any cache.
void dequantize_rows(Bench& b, Format format, double copy) {
  const int64_t out = b.quick() ? 64 : 11008, in = b.quick() ? 128 : 4096;
  std::vector<WeightView> weights;
  for (int i = 0; i < (b.quick() ? 2 : 8); ++i) weights.push_back(coded(b, format, out, in));
  void* dst = b.room(static_cast<size_t>(out * in) * 2);
  const double s = b.seconds([&](int i) {
    b.backend().dequantize(
        {.w = weights[static_cast<size_t>(i) % weights.size()], .dst = dst, .type = DType::bf16});
  });
  const double bytes = coded_bytes(format, out * in) + 2 * static_cast<double>(out * in);
  b.row(fmt::format("dequantize {}+dq {}x{} to bf16", name_of(format), out, in), bytes / s * kTera, "TB/s",
        bytes / s / copy, "copy");
}

// Token steps of 1 and 16 sequences: bytes of codes and scales a second.
void few_rows(Bench& b, Format format, double copy) {
  const int64_t out = b.quick() ? 64 : 11008, in = b.quick() ? 128 : 4096, most = 16;
  std::vector<WeightView> weights;
  for (int i = 0; i < (b.quick() ? 2 : 8); ++i) weights.push_back(coded(b, format, out, in));
  float *x = b.floats(most * in), *y = b.results(most * out);
  for (int64_t rows : {int64_t{1}, most}) {
    const double s = b.seconds([&](int i) {
      b.backend().qgemm({.x = x,
                         .w = weights[static_cast<size_t>(i) % weights.size()],
                         .y = y,
                         .rows = rows,
                         .operands = Operands::bf16,
                         .numerics = Numerics::decode});
    });
    const double bytes = coded_bytes(format, out * in);
    b.row(fmt::format("token step {}+dq {}x{} {} rows", name_of(format), out, in, rows), bytes / s * kGiga,
          "GB/s", bytes / s / copy, "copy");
  }
}

double operations(int64_t m, int64_t n, int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

// The ceiling: a product of bf16 matrices by cuBLAS alone. Beside it, what a layer of a dense bf16 weight and
// activations in f32, which it rounds first, makes of it, and our own tiles; where there is no cuBLAS (`qlora
// doctor`), without shares.
void dense_rows(Bench& b) {
  const int64_t n = b.quick() ? 96 : 4096;
  const std::string name(b.backend().name());
  float *x = b.floats(n * n), *y = b.results(n * n);
  WeightView w{.out = n, .in = n, .type = DType::bf16};
  const size_t bytes = static_cast<size_t>(n * n) * 2;
  void* elements = b.room(bytes);
  b.backend().fill(elements, bytes, 0x3c);
  w.data = elements;
  const LinearTerm term{.w = w, .y = y};
  const double flops = operations(n, n, n);
  const double product = time_of_blas(name, n, n, n, false, b.quick());
  if (product > 0)
    b.row(fmt::format("cuBLAS product {0}x{0}x{0} bf16", n), flops / product * kTera, "TFLOP/s");
  const double layer = b.seconds([&](int) {
    b.backend().linear({.x = x, .rows = n, .terms = {&term, 1}, .operands = Operands::bf16});
  });
  b.row(fmt::format("dense bf16 layer {0}x{0} {0} rows", n), flops / layer * kTera, "TFLOP/s",
        b.of(product, layer), "cuBLAS alone");
  const double tiles = b.seconds(
      [&](int) { b.backend().qgemm({.x = x, .w = w, .y = y, .rows = n, .operands = Operands::bf16}); });
  b.row(fmt::format("dense bf16 product {0}x{0}x{0} by tiles", n), flops / tiles * kTera, "TFLOP/s",
        b.of(product, tiles), "cuBLAS alone");
}

// The linear layer with an adapter of rank 64, forward and backward, with `rows` tokens; shares are of the
// same product with a dense bf16 weight, x in bf16 and no adapter, by cuBLAS alone.
void linear_rows(Bench& b) {
  const int64_t in = b.quick() ? 64 : 4096, out = b.quick() ? 128 : 11008, rank = b.quick() ? 8 : 64;
  const std::string name(b.backend().name());
  const WeightView w = coded(b, Format::nf4, out, in);
  const int64_t most = b.quick() ? 128 : 16384;
  float *x = b.floats(most * in), *y = b.floats(most * out), *dx = b.results(most * in);
  LoraPart part{.a = b.floats(rank * in), .b = b.floats(out * rank), .rank = rank, .scale = 0.25};
  part.u = b.results(most * rank);
  part.grad_a = b.floats(rank * in);
  part.grad_b = b.floats(out * rank);
  for (int64_t rows = b.quick() ? 32 : 512; rows <= most; rows *= 2) {
    part.hi = rows;
    const LinearTerm term{.w = w, .lora = {&part, 1}, .y = y};
    const LinearBackwardTerm back{.w = w, .lora = {&part, 1}, .dy = y};
    const std::vector<int32_t> sequences = {0, static_cast<int32_t>(rows)};
    const double flops = operations(rows, in, out);
    const double forward = b.seconds([&](int) {
      b.backend().linear({.x = x, .rows = rows, .terms = {&term, 1}, .operands = Operands::bf16});
    });
    const double backward = b.seconds([&](int) {
      b.backend().linear_backward({.x = x,
                                   .rows = rows,
                                   .terms = {&back, 1},
                                   .sequences = sequences,
                                   .dx = dx,
                                   .operands = Operands::bf16});
    });
    b.row(fmt::format("linear {}x{} r {} {} rows forward", in, out, rank, rows), flops / forward * kTera,
          "TFLOP/s", b.of(time_of_blas(name, rows, out, in, false, b.quick()), forward), "dense");
    b.row(fmt::format("linear {}x{} r {} {} rows backward", in, out, rank, rows), flops / backward * kTera,
          "TFLOP/s", b.of(time_of_blas(name, rows, in, out, true, b.quick()), backward), "dense");
  }
}

// Causal attention of sequences of 2,048 tokens; operations of the half that is seen.
void attention_rows(Bench& b) {
  const int64_t length = b.quick() ? 48 : 2048, count = b.quick() ? 1 : 4, heads = b.quick() ? 2 : 32,
                dim = b.quick() ? 64 : 128;
  const int64_t rows = length * count, n = rows * heads * dim;
  std::vector<SequenceSpan> spans;
  for (int64_t i = 0; i < count; ++i) spans.push_back({i * length, length, i * length, length});
  Attention a{.q = b.floats(n),
              .k = b.floats(n),
              .v = b.floats(n),
              .o = b.results(n),
              .lse = b.results(rows * heads),
              .sequences = spans,
              .heads = heads,
              .kv_heads = heads,
              .head_dim = dim,
              .scale = 1 / std::sqrt(static_cast<double>(dim)),
              .operands = Operands::bf16};
  AttentionBackward back{
      .forward = a, .dout = b.floats(n), .dq = b.results(n), .dk = b.results(n), .dv = b.results(n)};
  const double product =
      2.0 * static_cast<double>(rows) * static_cast<double>(length) / 2 * static_cast<double>(heads * dim);
  const double forward = b.seconds([&](int) { b.backend().attention(a); });
  const double backward = b.seconds([&](int) { b.backend().attention_backward(back); });
  b.row(fmt::format("attention {}x{} {} heads of {} forward", count, length, heads, dim),
        2 * product / forward * kTera, "TFLOP/s");
  b.row(fmt::format("attention {}x{} {} heads of {} backward", count, length, heads, dim),
        5 * product / backward * kTera, "TFLOP/s");
}

void entropy_rows(Bench& b, double copy) {
  const int64_t rows = b.quick() ? 4 : 512, vocab = b.quick() ? 300 : 32000;
  float *logits = b.floats(rows * vocab), *loss = b.results(rows), *dlogits = b.results(rows * vocab);
  const std::vector<int32_t> targets(static_cast<size_t>(rows), 5);
  const double s = b.seconds([&](int) {
    b.backend().cross_entropy({.logits = logits,
                               .targets = targets.data(),
                               .loss = loss,
                               .dlogits = dlogits,
                               .rows = rows,
                               .vocab = vocab});
  });
  const double bytes = 2.0 * sizeof(float) * static_cast<double>(rows * vocab);
  b.row(fmt::format("cross-entropy {}x{} with gradient", rows, vocab), bytes / s * kGiga, "GB/s",
        bytes / s / copy, "copy");
}

// The tokens of a step, drawn from the nucleus: what it adds to each.
void sample_rows(Bench& b) {
  const int64_t most = 16, vocab = b.quick() ? 300 : 32000;
  float* logits = b.floats(most * vocab);
  auto* tokens = static_cast<int32_t*>(b.room(most * sizeof(int32_t)));
  const std::vector<TokenChoice> choices(most,
                                         {.temperature = 0.7, .top_p = 0.9, .random = uint64_t{1} << 63});
  for (int64_t rows : {int64_t{1}, most}) {
    const double s = b.seconds([&](int) {
      b.backend().sample({.logits = logits,
                          .choices = std::span(choices).first(static_cast<size_t>(rows)),
                          .tokens = tokens,
                          .rows = rows,
                          .vocab = vocab});
    });
    b.row(fmt::format("tokens of {}x{} logits, nucleus", rows, vocab), s * 1e6, "us");
  }
}

void run(const std::string& name, bool quick) {
  const std::unique_ptr<Backend> backend = make_backend(name);
  Bench b(*backend, quick);
  const double copy = copy_rate(b);
  for (Format format : {Format::nf4, Format::int8}) {
    dequantize_rows(b, format, copy);
    few_rows(b, format, copy);
  }
  dense_rows(b);
  linear_rows(b);
  attention_rows(b);
  entropy_rows(b, copy);
  sample_rows(b);
  const DeviceUse use = device_use(name);
  b.row("products by cublasLt", static_cast<double>(use.by_lt), "calls");
  b.row("products by cublasGemmEx", static_cast<double>(use.by_gemm), "calls");
  b.row("cublasLt asked for an algorithm", static_cast<double>(use.asked), "times");
}

}  // namespace
}  // namespace qlora

int main(int argc, char** argv) {
  setenv("QLORA_CUDA_GRAPHS", "off", 0);  // kernels are timed as they are launched
  std::string backend = "cuda";
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--quick") {
      quick = true;
    } else {
      backend = word;
    }
  }
  try {
    qlora::run(backend, quick);
  } catch (const std::exception& e) {
    fmt::print(stderr, "qlora_device_bench: {}\n", e.what());
    return 1;
  }
}
