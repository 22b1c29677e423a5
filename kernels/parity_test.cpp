// Every available backend against the f64 reference, over the whole case table; and the laws that need no
// oracle: the same bits on any number of threads, at any alignment.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "core/base/half.h"
#include "core/base/parallel.h"
#include "core/base/test_data.h"
#include "kernels/cases/cases.h"

using namespace qlora;
using namespace qlora::test;

namespace {

// The rounding error that each result may have. Its scale is measured, not guessed: the oracle runs on
// operands that are each off by up to one rounding, several times; a result that such operands move by d has
// condition d. A backend rounds at every term as well, so the allowance grows with the root of the longest
// sum.
//
// With bf16 operands the oracle rounds them too, so what remains is the rounding of the sums: its scale is
// measured on operands that are bf16 values already and taken as they are, so that moving them crosses no
// rounding. Where a kernel rounds a value that it has computed itself, that value may fall to the other side:
// `flips` is added, but only few of the results may need it.
class Bound {
 public:
  static constexpr double kEpsilon = 0x1p-23;  // of f32

  Bound(const Case& c, Backend& oracle) : expected_(evaluate(c, oracle, DType::f64)), flips_(c.flips) {
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
  double worst(const std::vector<Array>& actual, DType type = DType::f32) const {
    double unit = type == DType::f32 ? 1 : 0x1p-52 / kEpsilon;
    double worst = actual.size() == expected_.size() ? 0 : std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < expected_.size(); ++i) {
      const double flip = flips_.empty() ? 0 : flips_[i];
      size_t flipped = 0;
      for (size_t j = 0; j < expected_[i].size(); ++j) {
        double error = std::abs(actual[i][j] - expected_[i][j]);
        if (error == 0) continue;
        if (flip > 0 && error > unit * bound_[i][j]) ++flipped;
        worst = worse(worst, error / (unit * bound_[i][j] + flip));
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
  std::vector<double> flips_;
};

bool same_bits(const std::vector<Array>& a, const std::vector<Array>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Array& x, const Array& y) { return test::same_bits(x, y); });
}

class ThreadCount {
 public:
  explicit ThreadCount(int n) : before_(thread_count()) { set_thread_count(n); }
  ~ThreadCount() { set_thread_count(before_); }

 private:
  int before_;
};

}  // namespace

TEST_CASE("Every backend agrees with the reference in f64 within the rounding that a case allows") {
  auto oracle = make_backend("reference");
  for (const Case& c : all_cases()) {
    Bound bound(c, *oracle);
    for (const std::string& name : available_backends()) {
      auto backend = make_test_backend(name);
      for (DType type : {DType::f32, DType::f64}) {
        if (name == "reference" && type == DType::f64) continue;  // it would be compared with itself
        if (!backend->computes_in(type)) continue;
        INFO(name << " " << c.kernel << " " << c.shape << " " << qlora::name_of(type));
        CHECK(bound.worst(evaluate(c, *backend, type), type) <= 1);
      }
    }
  }
}

TEST_CASE("A wrong result does not pass for a rounding error") {
  // One element off by a part in 20,000, and one left out of a sum of 1,030.
  auto oracle = make_backend("reference");
  for (const Case& c : matmul_cases()) {
    if (c.shape != "nt 16x16x1030 overwrite") continue;
    Bound bound(c, *oracle);
    std::vector<Array> result = evaluate(c, *oracle, DType::f32);
    CHECK(bound.worst(result) <= 1);
    result[0][7] *= 1 + 5e-5;
    CHECK(bound.worst(result) > 1);
    Case shorter = c;
    for (int i = 0; i < 16; ++i) shorter.inputs[0][static_cast<size_t>(i) * 1030 + 500] = 0;
    CHECK(bound.worst(evaluate(shorter, *oracle, DType::f32)) > 1);
    return;
  }
  FAIL("the case is gone");
}

TEST_CASE("Results have the same bits on one two and three threads and at any alignment") {
  std::vector<Case> cases = all_cases();
  for (const std::string& name : available_backends()) {
    auto backend = make_test_backend(name);
    std::vector<std::vector<Array>> alone;
    {
      ThreadCount one(1);
      for (const Case& c : cases) alone.push_back(evaluate(c, *backend, DType::f32));
    }
    for (int threads : {2, 3}) {
      if (name == kEmulatedGpu && threads == 2) continue;
      ThreadCount several(threads);
      for (size_t i = 0; i < cases.size(); ++i) {
        INFO(name << " " << cases[i].kernel << " " << cases[i].shape << " on " << threads << " threads");
        CHECK(same_bits(evaluate(cases[i], *backend, DType::f32, threads - 2), alone[i]));
      }
    }
  }
}

TEST_CASE("The index of the largest logit is the first of equal ones") {
  for (const std::string& name : available_backends()) {
    INFO(name);
    auto backend = make_test_backend(name);
    for (int64_t vocab : {1, 5, 16, 33, 1000}) {
      constexpr int64_t kRows = 4;
      Device d(*backend, DType::f32);
      Array logits = normals(3, kRows * vocab);
      std::vector<int32_t> expected;
      for (int64_t r = 0; r < kRows; ++r) {
        double* row = logits.data() + r * vocab;
        int64_t first = r * vocab / 5;
        for (int64_t i = first; i < vocab; i += 3) row[i] = 9;
        expected.push_back(static_cast<int32_t>(first));
      }
      std::vector<int32_t> targets = {0, -1, 0, 0};
      int32_t* argmax = d.put_raw(std::vector<int32_t>(kRows, -7));
      d.backend().cross_entropy({.logits = d.put(logits),
                                 .targets = targets.data(),
                                 .loss = d.make(kRows),
                                 .argmax = argmax,
                                 .rows = kRows,
                                 .vocab = vocab});
      CHECK(d.get_raw(argmax, kRows) == expected);
    }
  }
}
