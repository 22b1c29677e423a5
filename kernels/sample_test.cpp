// Drawing tokens: the same one on every backend, from logits and settings of all kinds.

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/cases/cases.h"
#include "kernels/draw.h"

using namespace qlora;
using namespace qlora::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Rows {
  int64_t vocab = 0;
  Array logits = {};
  std::vector<TokenChoice> choices = {};
  std::vector<int32_t> seen = {};
};

std::vector<int32_t> tokens_of(const std::string& backend_name, const Rows& rows, int64_t offset = 0) {
  auto backend = make_test_backend(backend_name);
  Device d(*backend, DType::f32, offset);
  const auto n = static_cast<int64_t>(rows.choices.size());
  int32_t* tokens = d.put_raw(std::vector<int32_t>(rows.choices.size(), -7));
  d.backend().sample({.logits = d.put(rows.logits),
                      .choices = rows.choices,
                      .seen = rows.seen,
                      .tokens = tokens,
                      .rows = n,
                      .vocab = rows.vocab});
  d.check_guards();
  return d.get_raw(tokens, n);
}

// Logits of several shapes - spread, flat, with many equal ones, with some that are impossible - under
// settings of all kinds.
Rows random_rows(uint64_t seed, int64_t vocab, int n) {
  PhiloxStream random(seed);
  auto one_of = [&](std::initializer_list<double> values) {
    return *(values.begin() + random.below(static_cast<uint32_t>(values.size())));
  };
  Rows rows{.vocab = vocab};
  for (int r = 0; r < n; ++r) {
    const double spread = one_of({0.01, 1, 4, 30}), step = one_of({0, 0, 0.5});
    for (double x : normals(seed + static_cast<uint64_t>(r), vocab, spread)) {
      if (step > 0) x = std::round(x / step) * step;
      rows.logits.push_back(random.below(50) == 0 ? -kInfinity : x);
    }
    rows.logits.back() = 1;  // not all are impossible
    TokenChoice choice{.temperature = one_of({0, 0.3, 0.7, 1, 1, 2.5}),
                       .top_p = one_of({1, 0.9, 0.9, 0.5, 1e-9, 0.9999}),
                       .top_k = static_cast<int64_t>(one_of({0, 0, 1, 5, 40, 1e6})),
                       .random = uint64_t{random.next()} << 32 | random.next(),
                       .penalty = static_cast<float>(one_of({1, 1.3}))};
    choice.seen_begin = choice.seen_end = static_cast<int32_t>(rows.seen.size());
    for (int32_t token = 0; choice.penalty != 1 && token < vocab;
         token += 1 + static_cast<int32_t>(random.below(9))) {
      rows.seen.push_back(token);
      ++choice.seen_end;
    }
    rows.choices.push_back(choice);
  }
  return rows;
}

}  // namespace

TEST_CASE("Every backend draws the token that the reference draws") {
  for (const std::string& name : available_backends()) {
    if (name == "reference") continue;
    for (int64_t vocab : {1, 31, 257, 3001}) {
      INFO(name << " " << vocab);
      const Rows rows = random_rows(5 + static_cast<uint64_t>(vocab), vocab, 24);
      CHECK(tokens_of(name, rows, 1) == tokens_of("reference", rows));
    }
  }
}

TEST_CASE("The first and the last place of the mass are drawn alike on every backend") {
  for (const std::string& name : available_backends()) {
    INFO(name);
    // 0.4, 0.3, 0.2, 0.1 in some order; a nucleus of 0.65 has the first two.
    Rows rows{.vocab = 4};
    for (uint64_t random : {uint64_t{0}, ~uint64_t{0}, uint64_t{0} - (uint64_t{1} << 62)})
      for (double top_p : {1.0, 0.65}) {
        for (double p : {0.2, 0.4, 0.1, 0.3}) rows.logits.push_back(std::log(p));
        rows.choices.push_back({.temperature = 1, .top_p = top_p, .random = random});
      }
    // At three quarters: 0.4 + 0.3 < 0.75, and 0.4 / 0.7 < 0.75.
    CHECK(tokens_of(name, rows) == std::vector<int32_t>{1, 1, 2, 3, 0, 3});
    // Of equal logits the smaller index comes first.
    rows = {.vocab = 5};
    for (uint64_t fifth = 0; fifth < 5; ++fifth) {
      rows.logits.insert(rows.logits.end(), {-0.0, 0.0, -0.0, 0.0, 0.0});
      rows.choices.push_back({.temperature = 1, .random = fifth * (~uint64_t{0} / 5) + (uint64_t{1} << 60)});
    }
    CHECK(tokens_of(name, rows) == std::vector<int32_t>{0, 1, 2, 3, 4});
  }
}

TEST_CASE("No token is drawn from logits that are no numbers, and rows beside them get theirs") {
  for (const std::string& name : available_backends()) {
    INFO(name);
    Rows rows{.vocab = 3};
    for (double temperature : {0.0, 1.0}) {
      for (const Array& x : {Array{1, std::nan(""), 2},
                             {kInfinity, 0, 0},
                             {-kInfinity, -kInfinity, -kInfinity},
                             {-kInfinity, -kInfinity, -40}}) {
        rows.logits.insert(rows.logits.end(), x.begin(), x.end());
        rows.choices.push_back({.temperature = temperature});
      }
    }
    CHECK(tokens_of(name, rows) == std::vector<int32_t>{-1, -1, -1, 2, -1, -1, -1, 2});
  }
}

TEST_CASE("Weights of tokens are the exponential as a whole number") {
  for (double temperature : {0.1, 0.7, 1.0, 3.0}) {
    const float rate = draw::rate_of(temperature);
    CHECK(draw::weight_of(2.5f, 2.5f, rate) == uint64_t{1} << draw::kWeightBits);
    for (float below = 0.0f; below < 12; below += 0.0137f) {
      const double expected =
          std::ldexp(std::exp(-static_cast<double>(below) / temperature), draw::kWeightBits);
      // The f32 argument has as many correct digits as its size leaves.
      const double bound = 1 + expected * 0x1p-21 * (1 + static_cast<double>(below) / temperature);
      CHECK(std::abs(static_cast<double>(draw::weight_of(-below, 0.0f, rate)) - expected) < bound);
    }
  }
  CHECK(draw::weight_of(-std::numeric_limits<float>::infinity(), 0.0f, 1.0f) == 0);
  CHECK(draw::weight_of(-1.0f, 0.0f, draw::rate_of(1e-300)) == 0);
  for (float x : {-3e38f, -1.5f, -1e-40f, 0.0f, 1e-40f, 2.0f})
    CHECK(draw::with_order(draw::order_of(x)) == x);
  CHECK(draw::order_of(-0.0f) == draw::order_of(0.0f));
  CHECK(draw::order_of(-2.0f) < draw::order_of(-1.0f));
  CHECK(draw::order_of(-1.0f) < draw::order_of(1.0f));
}
