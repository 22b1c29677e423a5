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
constexpr size_t kRandom = 65'537;  // numbers drawn; a prime, so that no two rows of a matrix are the same
constexpr uint64_t kSeedOfWeights = 1, kSeedOfX = 2;
constexpr double kTolerance = 2e-5;  // of the largest result: sums of a few thousand f32 terms

int64_t copies_of(double bytes) {
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

void multiply(Backend& backend, bool forward, const WeightView& w, int64_t rows, Operands operands,
              const float* x, float* y) {
  backend.qgemm({.layout = forward ? Layout::nt : Layout::nn,
                 .x = x,
                 .w = w,
                 .y = y,
                 .rows = rows,
                 .operands = operands});
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

Weights::Weights(Bench& bench, Format format, Operands operands, int64_t out, int64_t in)
    : memory_(bench.backend()), operands_(operands) {
  const std::vector<float> values = random_floats(out * in, kSeedOfWeights);
  QuantConfig config;
  config.format = format;
  config.double_quant = format != Format::dense;
  do {
    if (is_bf16(operands) && format == Format::dense) {
      std::vector<bf16>& w = narrow_.emplace_back(values.size());
      std::transform(values.begin(), values.end(), w.begin(), [](float x) { return to_bf16(x); });
      views_.push_back({.format = format, .out = out, .in = in, .data = w.data(), .type = DType::bf16});
      bytes_ = 2 * static_cast<double>(w.size());
    } else {
      weights_.push_back(quantize(memory_, "w", out, in, values, config, DType::f32));
      views_.push_back(weights_.back()->view());
      bytes_ = static_cast<double>(weights_.back()->bytes());
    }
  } while (static_cast<int64_t>(views_.size()) < copies_of(bytes_));
}

const std::vector<float>& Weights::expected(Bench& bench, bool forward, int64_t rows) {
  auto [it, fresh] = expected_.try_emplace({forward, rows});
  if (fresh) {
    const std::vector<float> x = random_floats(rows * (forward ? in() : out()), kSeedOfX);
    it->second.resize(static_cast<size_t>(rows * (forward ? out() : in())));
    multiply(bench.oracle(), forward, first(), rows, operands_, x.data(), it->second.data());
  }
  return it->second;
}

Products::Products(Bench& bench, std::shared_ptr<Weights> weights, int64_t rows, bool forward)
    : bench_(bench),
      weights_(std::move(weights)),
      rows_(rows),
      n_(forward ? weights_->out() : weights_->in()),
      forward_(forward),
      x_(random_floats(rows * (forward ? weights_->in() : weights_->out()), kSeedOfX)),
      y_(static_cast<size_t>(rows * n_)) {}

void Products::call(const WeightView& w) {
  multiply(bench_.backend(), forward_, w, rows_, weights_->operands(), x_.data(), y_.data());
}

std::string Products::check() {
  const std::vector<float>& expected = weights_->expected(bench_, forward_, std::min(rows_, kCheckedRows));
  std::fill(y_.begin(), y_.end(), std::nanf(""));
  call(weights_->first());
  double size = 0, error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    size = std::max(size, std::abs(static_cast<double>(expected[i])));
    const double e = std::abs(static_cast<double>(y_[i]) - static_cast<double>(expected[i]));
    error = std::isfinite(e) ? std::max(error, e) : INFINITY;
  }
  return error <= kTolerance * size ? "" : fmt::format("off by {:.3g} of {:.3g}", error, size);
}

DenseWeights::DenseWeights(DType of, int64_t rows, int64_t columns) : type(of), out(rows), in(columns) {
  const std::vector<std::byte> w = elements(type, random_floats(out * in, kSeedOfWeights));
  copies.assign(static_cast<size_t>(copies_of(static_cast<double>(w.size()))), w);
}

DenseOperands::DenseOperands(std::shared_ptr<const DenseWeights> weights, int64_t rows, bool forward)
    : weights_(std::move(weights)),
      m_(rows),
      n_(forward ? weights_->out : weights_->in),
      k_(forward ? weights_->in : weights_->out),
      forward_(forward),
      x_(elements(weights_->type, random_floats(m_ * k_, kSeedOfX))),
      y_(static_cast<size_t>(m_ * n_) * size_of(weights_->type)) {}

DenseProduct DenseOperands::product() const {
  DenseProduct p{.forward = forward_, .type = weights_->type, .m = m_, .n = n_, .k = k_, .x = x_.data()};
  for (const auto& w : weights_->copies) p.w.push_back(w.data());
  p.y = const_cast<std::byte*>(y_.data());
  return p;
}

}  // namespace qlora::bench
