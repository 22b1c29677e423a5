#pragma once
// For tests: how far a backend's results may be from the oracle's.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/base/half.h"
#include "core/base/test_data.h"
#include "kernels/cases/cases.h"

namespace qlora::test {

// The rounding error that each result may have. Its scale is measured, not guessed: the oracle runs on
// operands that are each off by up to one rounding, several times; a result that such operands move by d has
// condition d. A backend rounds at every term as well, so the allowance grows with the root of the longest
// sum.
//
// With bf16 operands the oracle rounds them too, so what remains is the rounding of the sums: its scale is
// measured on operands that are bf16 values already and taken as they are, so that moving them crosses no
// rounding. Where a kernel rounds a value that it has computed itself, that value may fall to the other side:
// `flips` is added, but only few of the results may need it. Backends that run the decode class in whole
// numbers are allowed `whole` besides.
class Bound {
 public:
  static constexpr double kEpsilon = 0x1p-23;  // of f32

  Bound(const Case& c, Backend& oracle)
      : expected_(evaluate(c, oracle, DType::f64)), flips_(c.flips), whole_(c.whole) {
    constexpr int kDraws = 12;
    for (const Array& result : expected_) bound_.emplace_back(result.size());
    PhiloxStream random(1234);
    const Case exact = with_exact_operands(c);
    const std::vector<Array> base =
        c.operands == Operands::as_stored ? expected_ : evaluate(exact, oracle, DType::f64);
    for (int draw = 0; draw < kDraws; ++draw) {
      std::vector<Array> inputs = exact.inputs;
      for (Array& values : inputs) {
        for (double& v : values) v *= 1 + kEpsilon * (2 * static_cast<double>(random.uniform()) - 1);
      }
      std::vector<Array> moved = evaluate(exact, oracle, DType::f64, 0, inputs);
      for (size_t i = 0; i < moved.size(); ++i) {
        for (size_t j = 0; j < moved[i].size(); ++j) {
          bound_[i][j] += std::pow(moved[i][j] - base[i][j], 2) / kDraws;
        }
      }
    }
    double factor = 8 + 3 * std::sqrt(static_cast<double>(c.length));
    for (size_t i = 0; i < bound_.size(); ++i) {
      double cancels = c.cancels.empty() ? 0 : c.cancels[i];
      for (size_t j = 0; j < bound_[i].size(); ++j) {
        bound_[i][j] =
            factor * std::sqrt(bound_[i][j]) + kEpsilon * (std::abs(expected_[i][j]) + 8 * cancels);
      }
    }
  }

  // The largest error in units of its bound; above 1 fails. What operands move results by is linear in their
  // rounding, so f64 is held to the same bound in its own units.
  double worst(const std::vector<Array>& actual, DType type = DType::f32,
               bool in_whole_numbers = false) const {
    double unit = type == DType::f32 ? 1 : 0x1p-52 / kEpsilon;
    double worst = actual.size() == expected_.size() ? 0 : std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < expected_.size(); ++i) {
      const double flip = flips_.empty() ? 0 : flips_[i];
      const double whole = in_whole_numbers && !whole_.empty() ? whole_[i] : 0;
      size_t flipped = 0;
      for (size_t j = 0; j < expected_[i].size(); ++j) {
        double error = std::abs(actual[i][j] - expected_[i][j]);
        if (error == 0) continue;
        if (flip > 0 && error > unit * bound_[i][j] + whole) ++flipped;
        worst = worse(worst, error / (unit * bound_[i][j] + flip + whole));
      }
      if (3 * flipped > expected_[i].size()) worst = std::numeric_limits<double>::infinity();
    }
    return worst;
  }

 private:
  static Case with_exact_operands(Case c) {
    if (c.operands == Operands::as_stored) return c;
    c.operands = Operands::as_stored;
    for (Array& values : c.inputs) {
      for (double& v : values) v = static_cast<double>(to_float(to_bf16(static_cast<float>(v))));
    }
    return c;
  }

  std::vector<Array> expected_, bound_;
  std::vector<double> flips_, whole_;
};

inline bool same_bits(const std::vector<Array>& a, const std::vector<Array>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Array& x, const Array& y) { return test::same_bits(x, y); });
}

}  // namespace qlora::test
