#pragma once
// Operands of the kernel rows: random, and as many copies of each weight as it takes to fill more than the
// caches, because in a model no weight is still there from its last use.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/half.h"
#include "core/quant/frozen.h"
#include "experiments/bench/bench.h"
#include "experiments/bench/peers.h"

namespace qlora::bench {

inline constexpr int64_t kCold = 64 << 20;  // bytes of copies

std::vector<float> random_floats(int64_t n, uint64_t seed);

// The bf16 operands that are fastest with the backend under test here, as `compute_dtype: auto` has them:
// bf16_amx, or bf16; as_stored where the processor has no instructions for either.
Operands bf16_operands(Bench&);
// What a row says of bf16_amx; empty of others.
std::string note_of(Operands);

// Weights of one size with our storage: NF4 with double-quantized scales, or dense. Making them takes longer
// than timing a product of a few rows: those of one size share them.
class Weights {
 public:
  Weights(Bench&, Format, Operands, int64_t out, int64_t in);
  int64_t out() const { return views_[0].out; }
  int64_t in() const { return views_[0].in; }
  Operands operands() const { return operands_; }
  WeightView next() { return views_[turn_++ % views_.size()]; }
  WeightView first() const { return views_[0]; }
  double bytes() const { return bytes_; }  // that one pass over one copy reads
  // What the plain loops make of the first copy and `rows` rows of x, those of every Products.
  const std::vector<float>& expected(Bench&, bool forward, int64_t rows);

 private:
  Memory memory_;
  Operands operands_;
  std::map<std::pair<bool, int64_t>, std::vector<float>> expected_;
  std::vector<std::shared_ptr<FrozenWeight>> weights_;
  std::vector<std::vector<bf16>> narrow_;  // dense weights of bf16
  std::vector<WeightView> views_;
  size_t turn_ = 0;
  double bytes_ = 0;
};

// One product of ours: y = x Wᵀ, or y = x W backward, by Backend::qgemm.
class Products {
 public:
  Products(Bench&, std::shared_ptr<Weights>, int64_t rows, bool forward);
  // Compares some rows with the plain loops; empty when they agree, else what is wrong.
  std::string check();
  void run() { call(weights_->next()); }

 private:
  void call(const WeightView&);
  Bench& bench_;
  std::shared_ptr<Weights> weights_;
  int64_t rows_, n_;
  bool forward_;
  std::vector<float> x_, y_;
};

// The same for a library: x, w and y of one type.
class DenseWeights {
 public:
  DenseWeights(DType, int64_t out, int64_t in);

  const DType type;
  const int64_t out, in;
  std::vector<std::vector<std::byte>> copies;
};
class DenseOperands {
 public:
  DenseOperands(std::shared_ptr<const DenseWeights>, int64_t rows, bool forward);
  DenseProduct product() const;

 private:
  std::shared_ptr<const DenseWeights> weights_;
  int64_t m_, n_, k_;
  bool forward_;
  std::vector<std::byte> x_, y_;
};

}  // namespace qlora::bench
