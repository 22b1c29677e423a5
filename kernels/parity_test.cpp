// Every available backend against the f64 reference, over the whole case table; and the laws that need no
// oracle: the same bits on any number of threads, at any alignment.

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "core/base/half.h"
#include "core/base/parallel.h"
#include "core/base/test_data.h"
#include "kernels/cases/bound.h"
#include "kernels/cases/cases.h"

using namespace qlora;
using namespace qlora::test;

namespace {

class ThreadCount {
 public:
  explicit ThreadCount(int n) : before_(thread_count()) { set_thread_count(n); }
  ~ThreadCount() { set_thread_count(before_); }

 private:
  int before_;
};

// Whether a case is that of bf16 once more: these backends sum bf16_amx in the same way.
bool repeats(const std::string& backend, const Case& c) {
  return c.operands == Operands::bf16_amx && (backend == "reference" || backend == kEmulatedGpu);
}

}  // namespace

TEST_CASE("Every backend agrees with the reference in f64 within the rounding that a case allows") {
  auto oracle = make_backend("reference");
  for (const Case& c : all_cases()) {
    Bound bound(c, *oracle);
    for (const std::string& name : available_backends()) {
      if (repeats(name, c)) continue;
      auto backend = make_test_backend(name);
      for (DType type : {DType::f32, DType::f64}) {
        if (name == "reference" && type == DType::f64) continue;  // it would be compared with itself
        if (!backend->computes_in(type)) continue;
        INFO(name << " " << c.kernel << " " << c.shape << " " << qlora::name_of(type));
        const bool whole = backend->host_memory() && name != "reference";  // the decode class of processors
        CHECK(bound.worst(evaluate(c, *backend, type), type, whole) <= 1);
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
      for (const Case& c : cases)
        alone.push_back(repeats(name, c) ? std::vector<Array>() : evaluate(c, *backend, DType::f32));
    }
    for (int threads : {2, 3}) {
      if (name == kEmulatedGpu && threads == 2) continue;
      ThreadCount several(threads);
      for (size_t i = 0; i < cases.size(); ++i) {
        if (repeats(name, cases[i])) continue;
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
    for (auto [vocab, softcap] :
         {std::pair<int64_t, double>{1, 0}, {5, 0}, {16, 0}, {33, 0}, {1000, 0}, {33, 5}, {1000, 5}}) {
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
                                 .vocab = vocab,
                                 .softcap = softcap});
      CHECK(d.get_raw(argmax, kRows) == expected);
    }
  }
}
