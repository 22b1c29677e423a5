// How fast the kernels of a backend are, as fractions of what the processor can do: the peak of multiply-adds
// is measured in the same run, before every product, because clocks and neighbours change. Every kernel is
// first checked against the plain loops on some of its rows; a wrong one is not timed.
//
//     qlora_kernels_bench [BACKEND] [ROWS...]        default: the best backend, 300 and 1024 rows;
//     QLORA_THREADS

#include <fmt/format.h>

#include <ctime>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/half.h"
#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"

namespace qlora {
namespace {

using Floats = std::vector<float>;

// One thread is timed by its processor's seconds, which a neighbour's load cannot stretch; several by the
// wall's.
double now() {
  timespec t{};
  clock_gettime(thread_count() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

Floats random_floats(int64_t n, uint64_t seed) {
  PhiloxStream stream(seed);
  Floats v(static_cast<size_t>(n));
  for (float& x : v) x = stream.uniform() * 2 - 1;
  return v;
}

// Multiply-adds of all threads, in GFLOP/s: the best of some short runs.
double fma_peak(const cpu::Kernels& kernels) {
  constexpr int64_t kRounds = 400000;
  const int threads = thread_count();
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    double start = now();
    parallel_for(threads, 1, [&](int64_t, int64_t) { kernels.fma_peak(kRounds); });
    best = std::max(best, 2.0 * 12 * kernels.lanes * kRounds * threads / (now() - start) * 1e-9);
  }
  return best;
}

struct Timing {
  double low, median, high;  // seconds: tenth, fiftieth, ninetieth of a hundred
};

Timing time(const std::function<void()>& body) {
  std::vector<double> seconds;
  body();
  for (double start = now(); seconds.size() < 7 || (now() - start < 0.3 && seconds.size() < 1000);) {
    double before = now();
    body();
    seconds.push_back(now() - before);
  }
  std::sort(seconds.begin(), seconds.end());
  auto at = [&](double f) {
    return seconds[static_cast<size_t>(f * static_cast<double>(seconds.size() - 1))];
  };
  return {at(0.1), at(0.5), at(0.9)};
}

// One kernel at one shape: `run` writes `rows` rows of `y` with either backend.
struct Item {
  std::string name;
  double flops;  // 0: bytes are counted instead
  double bytes;
  int64_t rows, checked_rows;
  Floats* y;
  std::function<void(Backend&, int64_t rows)> run;
  float tolerance = 2e-5f;  // of the largest result
};

bool correct(const Item& item, Backend& backend, Backend& plain) {
  const size_t n = item.y->size() / static_cast<size_t>(item.rows) * static_cast<size_t>(item.checked_rows);
  item.run(plain, item.checked_rows);
  Floats expected(item.y->begin(), item.y->begin() + static_cast<std::ptrdiff_t>(n));
  std::fill(item.y->begin(), item.y->end(), NAN);
  item.run(backend, item.rows);
  float size = 0, error = 0;
  for (size_t i = 0; i < n; ++i) {
    size = std::max(size, std::abs(expected[i]));
    float e = std::abs((*item.y)[i] - expected[i]);
    error = std::isfinite(e) ? std::max(error, e) : INFINITY;
  }
  if (error <= item.tolerance * size) return true;
  std::printf("%-36s WRONG: off by %g of %g\n", item.name.c_str(), static_cast<double>(error),
              static_cast<double>(size));
  return false;
}

void report(const Item& item, Backend& backend, Backend& plain, const cpu::Kernels* kernels) {
  if (!correct(item, backend, plain)) return;
  double peak = kernels != nullptr && item.flops > 0 ? fma_peak(*kernels) : 0;
  Timing t = time([&] { item.run(backend, item.rows); });
  std::string rate = item.flops > 0 ? fmt::format("{:7.1f} GFLOP/s", item.flops / t.median * 1e-9)
                                    : fmt::format("{:7.1f} GB/s   ", item.bytes / t.median * 1e-9);
  if (peak > 0) rate += fmt::format("  {:4.2f} of peak {:.0f}", item.flops / t.median * 1e-9 / peak, peak);
  std::printf("%-36s %9.1f us (%.1f .. %.1f)  %s\n", item.name.c_str(), t.median * 1e6, t.low * 1e6,
              t.high * 1e6, rate.c_str());
  std::fflush(stdout);
}

using Report = std::function<void(const Item&)>;

std::vector<uint8_t> random_codes(int64_t bytes) {
  PhiloxStream stream(3);
  std::vector<uint8_t> codes(static_cast<size_t>(bytes));
  for (uint8_t& c : codes) c = static_cast<uint8_t>(stream.next());
  return codes;
}

// The decode class, as bytes of the weight that are read in a second.
void token_step(int64_t m, int64_t out, int64_t in, const Report& emit) {
  const Floats absmax = random_floats(out * in / 64, 2), x = random_floats(m * in, 4);
  const std::vector<uint8_t> codes = random_codes(out * in);
  Floats y(static_cast<size_t>(m * out));
  for (Format format : {Format::nf4, Format::int8}) {
    const WeightView w{
        .format = format, .out = out, .in = in, .data = codes.data(), .block = 64, .absmax = absmax.data()};
    const int64_t bytes = packed_bytes(format, out * in) + out * in / 64 * 4;
    emit({fmt::format("{} decode {}x{}, {} rows", name_of(format), out, in, m), 0, static_cast<double>(bytes),
          m, std::min<int64_t>(m, 2), &y,
          [&](Backend& b, int64_t rows) {
            b.qgemm({.x = x.data(), .w = w, .y = y.data(), .rows = rows, .numerics = Numerics::decode});
          },
          5e-4f});
  }
}

void products(int64_t m, int64_t out, int64_t in, const Report& emit) {
  Floats dense = random_floats(out * in, 1), absmax = random_floats(out * in / 64, 2);
  const std::vector<uint8_t> codes = random_codes(out * in);
  std::vector<bf16> narrow(dense.size());
  std::transform(dense.begin(), dense.end(), narrow.begin(), to_bf16);
  for (auto [format, operands] : {std::pair{Format::dense, Operands::as_stored},
                                  {Format::dense, Operands::bf16},
                                  {Format::dense, Operands::bf16_amx},
                                  {Format::nf4, Operands::as_stored},
                                  {Format::nf4, Operands::bf16},
                                  {Format::nf4, Operands::bf16_amx},
                                  {Format::int8, Operands::as_stored},
                                  {Format::int8, Operands::bf16},
                                  {Format::int8, Operands::bf16_amx}}) {
    WeightView w{.format = format, .out = out, .in = in, .data = dense.data(), .block = 64};
    if (is_bf16(operands)) w.data = narrow.data(), w.type = DType::bf16;
    if (format != Format::dense) w.data = codes.data(), w.absmax = absmax.data();
    for (Layout layout : {Layout::nt, Layout::nn}) {
      const bool forward = layout == Layout::nt;
      Floats x = random_floats(m * (forward ? in : out), 4), y(static_cast<size_t>(m * (forward ? out : in)));
      QGemm product{.layout = layout, .x = x.data(), .w = w, .y = y.data(), .operands = operands};
      emit({fmt::format("{} {} {} {}x{}, {} rows", name_of(format), name_of(operands),
                        forward ? "forward" : "backward", out, in, m),
            2.0 * static_cast<double>(m * out * in), 0, m, std::min<int64_t>(m, 7), &y,
            [&](Backend& b, int64_t rows) {
              product.rows = rows;
              b.qgemm(product);
            }});
    }
  }
}

void attention(int64_t length, int64_t count, Operands operands, double softcap, const Report& emit) {
  const int64_t rows = length * count, heads = 9, kv = 3, dim = 64;
  Floats q = random_floats(rows * heads * dim, 1), k = random_floats(rows * kv * dim, 2),
         v = random_floats(rows * kv * dim, 3), dout = random_floats(rows * heads * dim, 4);
  Floats o(q.size()), lse(static_cast<size_t>(rows * heads)), dq(q.size()), dk(k.size()), dv(k.size());
  std::vector<SequenceSpan> spans;
  for (int64_t i = 0; i < count; ++i) spans.push_back({i * length, length, i * length, length});
  Attention a{.q = q.data(),
              .k = k.data(),
              .v = v.data(),
              .o = o.data(),
              .lse = lse.data(),
              .sequences = spans,
              .heads = heads,
              .kv_heads = kv,
              .head_dim = dim,
              .scale = 0.125,
              .operands = operands,
              .softcap = softcap};
  const bool bf16 = is_bf16(operands);
  const std::string name = fmt::format("attention {}{}", name_of(operands), softcap > 0 ? " softcap" : "");
  // Weights that a kernel computes itself may fall to the other side of a rounding to bf16.
  const float tolerance = bf16 ? 2e-3f : 2e-5f;
  // Multiply-adds under the causal mask; the backward pass has five products for the forward pass's two.
  const double flops = 4.0 * static_cast<double>(count * length * (length + 1) / 2 * heads * dim);
  auto some = [&](int64_t n) { return std::span(spans).first(static_cast<size_t>(n / length)); };
  emit({fmt::format("{} forward, {} x {}", name, count, length), flops, 0, rows, length, &o,
        [&](Backend& b, int64_t n) {
          Attention part = a;
          part.sequences = some(n);
          b.attention(part);
        },
        tolerance});
  emit({fmt::format("{} backward, {} x {}", name, count, length), 2.5 * flops, 0, rows, length, &dq,
        [&](Backend& b, int64_t n) {
          Attention part = a;
          part.sequences = some(n);
          b.attention_backward(
              {.forward = part, .dout = dout.data(), .dq = dq.data(), .dk = dk.data(), .dv = dv.data()});
        },
        tolerance});
}

void elements(int64_t m, const Report& emit) {
  const int64_t dim = 576, ffn = 1536, vocab = 49152;
  Floats x = random_floats(m * ffn, 1), w = random_floats(ffn, 2), u = random_floats(m * ffn, 3), y(x.size());
  Floats dy(static_cast<size_t>(m * dim)), rstd(static_cast<size_t>(m)), mean(rstd), dgate(x.size());
  auto moved = [](int64_t floats) { return 4.0 * static_cast<double>(floats); };
  emit({fmt::format("rms_norm, {} x {}", m, dim), 0, moved(2 * m * dim), m, m, &dy,
        [&](Backend& b, int64_t n) {
          b.rms_norm(
              {.x = x.data(), .w = w.data(), .y = dy.data(), .rstd = rstd.data(), .rows = n, .cols = dim});
        }});
  emit({fmt::format("rms_norm backward, {} x {}", m, dim), 0, moved(3 * m * dim), m, m, &dy,
        [&](Backend& b, int64_t n) {
          b.rms_norm_backward({.dy = u.data(),
                               .x = x.data(),
                               .w = w.data(),
                               .rstd = rstd.data(),
                               .dx = dy.data(),
                               .rows = n,
                               .cols = dim});
        }});
  emit({fmt::format("layer_norm, {} x {}", m, dim), 0, moved(2 * m * dim), m, m, &dy,
        [&](Backend& b, int64_t n) {
          b.layer_norm({.x = x.data(),
                        .w = w.data(),
                        .bias = w.data(),
                        .y = dy.data(),
                        .mean = mean.data(),
                        .rstd = rstd.data(),
                        .rows = n,
                        .cols = dim});
        }});
  emit({fmt::format("layer_norm backward, {} x {}", m, dim), 0, moved(3 * m * dim), m, m, &dy,
        [&](Backend& b, int64_t n) {
          b.layer_norm_backward({.dy = u.data(),
                                 .x = x.data(),
                                 .w = w.data(),
                                 .mean = mean.data(),
                                 .rstd = rstd.data(),
                                 .dx = dy.data(),
                                 .rows = n,
                                 .cols = dim});
        }});
  for (auto [name, kind] : {std::pair{"gelu", Activation::gelu}, {"gelu_tanh", Activation::gelu_tanh}})
    emit({fmt::format("{}, {} x {}", name, m, ffn), 0, moved(2 * m * ffn), m, m, &y,
          [&, kind = kind](Backend& b, int64_t n) {
            b.activate({.kind = kind, .gate = x.data(), .y = y.data(), .n = n * ffn});
          }});
  emit({fmt::format("swiglu, {} x {}", m, ffn), 0, moved(3 * m * ffn), m, m, &y, [&](Backend& b, int64_t n) {
          b.activate({.gate = x.data(), .up = u.data(), .y = y.data(), .n = n * ffn});
        }});
  emit({fmt::format("swiglu backward, {} x {}", m, ffn), 0, moved(5 * m * ffn), m, m, &y,
        [&](Backend& b, int64_t n) {
          b.activate_backward({.dy = w.data(),
                               .gate = x.data(),
                               .up = u.data(),
                               .dgate = dgate.data(),
                               .dup = y.data(),
                               .n = std::min(n * ffn, ffn)});
          b.activate_backward({.dy = u.data(),
                               .gate = x.data(),
                               .up = u.data(),
                               .dgate = dgate.data(),
                               .dup = y.data(),
                               .n = n * ffn});
        }});
  const int64_t rows = std::min<int64_t>(m, 128);
  Floats logits = random_floats(rows * vocab, 5), loss(static_cast<size_t>(rows)), dlogits(logits.size());
  std::vector<int32_t> targets(static_cast<size_t>(rows), 17);
  emit({fmt::format("cross_entropy, {} x {}", rows, vocab), 0, moved(2 * rows * vocab), rows,
        std::min<int64_t>(rows, 4), &dlogits, [&](Backend& b, int64_t n) {
          b.cross_entropy({.logits = logits.data(),
                           .targets = targets.data(),
                           .loss = loss.data(),
                           .dlogits = dlogits.data(),
                           .rows = n,
                           .vocab = vocab});
        }});
}

// A linear layer with the adapters of `runs` runs of four sequences each, dropout 0.1.
void adapters(int64_t m, int64_t out, int64_t in, int64_t rank, Operands operands, const Report& emit) {
  const int64_t runs = 4, per_run = m / runs, rows = per_run * runs;
  Floats dense = random_floats(out * in, 1), x = random_floats(rows * in, 2),
         dy = random_floats(rows * out, 3);
  Floats a = random_floats(rank * in, 4), b = random_floats(out * rank, 5),
         u(static_cast<size_t>(rows * rank));
  Floats y(dy.size()), dx(x.size()), grad_a(a.size()), grad_b(b.size());
  std::vector<RowKey> keys(static_cast<size_t>(rows));
  std::vector<int32_t> sequences;
  for (int64_t s = 0; s <= 4 * runs; ++s) sequences.push_back(static_cast<int32_t>(rows * s / (4 * runs)));
  std::vector<LoraPart> parts;
  for (int64_t r = 0; r < runs; ++r)
    parts.push_back({.lo = r * per_run,
                     .hi = (r + 1) * per_run,
                     .a = a.data(),
                     .b = b.data(),
                     .rank = rank,
                     .scale = 2,
                     .dropout = {0.1f, 77, 1},
                     .u = u.data() + r * per_run * rank,
                     .grad_a = grad_a.data(),
                     .grad_b = grad_b.data()});
  WeightView w{.out = out, .in = in, .data = dense.data()};
  LinearTerm term{.w = w, .lora = parts, .y = y.data()};
  LinearBackwardTerm back{.w = w, .lora = parts, .dy = dy.data()};
  const double base = 2.0 * static_cast<double>(rows * out * in),
               low = 2.0 * static_cast<double>(rows * rank * (out + in));
  // u and du, computed here, may fall to the other side of a rounding to bf16.
  const float tolerance = is_bf16(operands) ? 2e-3f : 2e-5f;
  emit({fmt::format("linear {} {}x{} + 4 LoRA r{}, {} rows", name_of(operands), out, in, rank, rows),
        base + low, 0, rows, rows, &y,
        [&](Backend& be, int64_t n) {
          be.linear(
              {.x = x.data(), .rows = n, .terms = {&term, 1}, .keys = keys.data(), .operands = operands});
        },
        tolerance});
  emit({fmt::format("linear backward of the same"), base + 2 * low, 0, rows, rows, &dx,
        [&](Backend& be, int64_t n) {
          be.linear_backward({.x = x.data(),
                              .rows = n,
                              .terms = {&back, 1},
                              .keys = keys.data(),
                              .sequences = sequences,
                              .dx = dx.data(),
                              .operands = operands});
        },
        tolerance});
}

int run(int argc, char** argv) {
  auto backend = make_backend(argc > 1 ? argv[1] : "auto"), plain = make_backend("reference");
  const cpu::Kernels* kernels = backend->name() == "avx2"     ? &cpu::avx2_kernels()
                                : backend->name() == "avx512" ? &cpu::avx512_kernels()
                                                              : nullptr;
  std::printf("%s, %s, %d thread(s), %s seconds; median (tenth .. ninetieth percentile)\n",
              std::string(backend->name()).c_str(), cpu_brand().c_str(), thread_count(),
              thread_count() == 1 ? "processor" : "wall");
  Report emit = [&](const Item& item) { report(item, *backend, *plain, kernels); };
  std::vector<int64_t> rows;
  for (int i = 2; i < argc; ++i) rows.push_back(std::atol(argv[i]));
  if (rows.empty()) rows = {300, 1024};
  for (int64_t m : rows) {
    for (auto [out, in] : {std::pair<int64_t, int64_t>{576, 576}, {192, 576}, {1536, 576}, {576, 1536}})
      products(m, out, in, emit);
    if (m <= 512) products(m, 49152, 576, emit);
    if (m <= 32)
      for (auto [out, in] : {std::pair<int64_t, int64_t>{49152, 576}, {32000, 2048}})
        token_step(m, out, in, emit);
    if (m >= 64) {
      for (Operands operands : {Operands::as_stored, Operands::bf16_amx}) {
        adapters(m, 576, 576, 8, operands, emit);
        adapters(m, 1536, 576, 16, operands, emit);
      }
    }
    elements(m, emit);
  }
  for (Operands operands : kAllOperands) {
    attention(80, 16, operands, 0, emit);
    for (double softcap : {0.0, 30.0}) attention(700, 2, operands, softcap, emit);
  }
  return 0;
}

}  // namespace
}  // namespace qlora

int main(int argc, char** argv) {
  try {
    return qlora::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
