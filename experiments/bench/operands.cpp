#include "experiments/bench/operands.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/check.h"
#include "core/base/half.h"
#include "core/base/philox.h"

namespace qlora::bench {
namespace {

constexpr int64_t kMostCopies = 128;
constexpr int64_t kCheckedRows = 3;
constexpr size_t kRandom = 65'537;   // numbers drawn; a prime, so that no two rows of a matrix are the same
constexpr double kTolerance = 2e-5;  // of the largest result: sums of a few thousand f32 terms

int64_t copies(double bytes) {
  return std::clamp<int64_t>(static_cast<int64_t>(static_cast<double>(kCold) / bytes) + 1, 1, kMostCopies);
}

std::vector<std::byte> elements(DType type, const std::vector<float>& values) {
  std::vector<std::byte> out(values.size() * size_of(type));
  if (type == DType::f32) {
    std::memcpy(out.data(), values.data(), out.size());
  } else {
    for (size_t i = 0; i < values.size(); ++i) {
      const bf16 h = to_bf16(values[i]);
      std::memcpy(out.data() + 2 * i, &h, 2);
    }
  }
  return out;
}

}  // namespace

std::vector<float> random_floats(int64_t n, uint64_t seed) {
  PhiloxStream stream(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (size_t i = 0; i < v.size(); ++i) v[i] = i < kRandom ? stream.uniform() * 2 - 1 : v[i - kRandom];
  return v;
}

Operands bf16_operands(Bench& bench) {
  const Peaks& peaks = bench.peaks(bench.most_threads());
  return peaks.amx > 0 ? Operands::bf16_amx : peaks.bf16 > 0 ? Operands::bf16 : Operands::as_stored;
}

std::string note_of(Operands operands) {
  return operands == Operands::bf16_amx ? "bf16_amx: by the tiles of AMX" : "";
}

Weights::Weights(Memory& memory, Format format, bool narrow, int64_t out, int64_t in) {
  const std::vector<float> values = random_floats(out * in, 1);
  QuantConfig config;
  config.format = format;
  config.double_quant = format != Format::dense;
  do {
    if (narrow && format == Format::dense) {
      std::vector<bf16>& w = narrow_.emplace_back(values.size());
      std::transform(values.begin(), values.end(), w.begin(), [](float x) { return to_bf16(x); });
      views_.push_back({.format = format, .out = out, .in = in, .data = w.data(), .type = DType::bf16});
      bytes_ = 2 * static_cast<double>(w.size());
    } else {
      weights_.push_back(quantize(memory, "w", out, in, values, config, DType::f32));
      views_.push_back(weights_.back()->view());
      bytes_ = static_cast<double>(weights_.back()->bytes());
    }
  } while (static_cast<int64_t>(views_.size()) < copies(bytes_));
}

Products::Products(Bench& bench, Format format, Operands operands, int64_t out, int64_t in, int64_t rows,
                   bool forward)
    : bench_(bench),
      memory_(bench.backend()),
      weights_(memory_, format, is_bf16(operands), out, in),
      rows_(rows),
      n_(forward ? out : in),
      k_(forward ? in : out),
      forward_(forward),
      operands_(operands),
      x_(random_floats(rows * k_, 2)),
      y_(static_cast<size_t>(rows * n_)) {}

void Products::call(Backend& backend, const WeightView& w, int64_t rows) {
  backend.qgemm({.layout = forward_ ? Layout::nt : Layout::nn,
                 .x = x_.data(),
                 .w = w,
                 .y = y_.data(),
                 .rows = rows,
                 .operands = operands_});
}

std::string Products::check() {
  const int64_t rows = std::min(rows_, kCheckedRows);
  call(bench_.oracle(), weights_.first(), rows);
  const std::vector<float> expected(y_.begin(), y_.begin() + rows * n_);
  std::fill(y_.begin(), y_.end(), std::nanf(""));
  call(bench_.backend(), weights_.first(), rows_);
  double size = 0, error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    size = std::max(size, std::abs(static_cast<double>(expected[i])));
    const double e = std::abs(static_cast<double>(y_[i]) - static_cast<double>(expected[i]));
    error = std::isfinite(e) ? std::max(error, e) : INFINITY;
  }
  return error <= kTolerance * size ? "" : fmt::format("off by {:.3g} of {:.3g}", error, size);
}

DenseOperands::DenseOperands(DType type, int64_t m, int64_t n, int64_t k) : type_(type), m_(m), n_(n), k_(k) {
  x_ = elements(type, random_floats(m * k, 2));
  y_.resize(static_cast<size_t>(m * n) * size_of(type));
  const std::vector<std::byte> w = elements(type, random_floats(n * k, 1));
  for (int64_t i = 0; i < copies(static_cast<double>(w.size())); ++i) w_.push_back(w);
}

DenseProduct DenseOperands::product(bool forward) const {
  DenseProduct p{.forward = forward, .type = type_, .m = m_, .n = n_, .k = k_, .x = x_.data()};
  for (const auto& w : w_) p.w.push_back(w.data());
  p.y = const_cast<std::byte*>(y_.data());
  return p;
}

}  // namespace qlora::bench
