#include <catch2/catch.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "datasets/dataset.h"
#include "datasets/test_tools.h"

using namespace qlora;

namespace {

// Example i has 1 + (7 i mod 31) tokens, all of them i.
std::shared_ptr<const std::vector<TokenExample>> examples(int32_t count) {
  auto out = std::make_shared<std::vector<TokenExample>>();
  for (int32_t i = 0; i < count; ++i) {
    TokenExample e;
    e.ids.assign(static_cast<size_t>(1 + 7 * i % 31), i);
    e.labels = e.ids;
    out->push_back(std::move(e));
  }
  return out;
}

std::vector<int32_t> draw(ExampleSource& source, int count) {
  std::vector<int32_t> out;
  for (int i = 0; i < count; ++i) out.push_back(source.next()->ids[0]);
  return out;
}

}  // namespace

TEST_CASE("Every epoch gives every example once in an order of its own") {
  auto sampler = make_sampler(examples(40), 5, false, 4);
  std::vector<int32_t> first = draw(*sampler, 40), second = draw(*sampler, 40);
  CHECK(first != second);
  for (auto* epoch : {&first, &second}) {
    std::sort(epoch->begin(), epoch->end());
    for (int32_t i = 0; i < 40; ++i) CHECK((*epoch)[static_cast<size_t>(i)] == i);
  }
}

TEST_CASE("The order depends on the seed alone") {
  auto a = make_sampler(examples(40), 5, false, 4), b = make_sampler(examples(40), 5, false, 4);
  auto c = make_sampler(examples(40), 6, false, 4);
  std::vector<int32_t> order = draw(*a, 100);
  CHECK(order == draw(*b, 100));
  CHECK(order != draw(*c, 100));
}

TEST_CASE("Grouping by length keeps every example and brings like lengths together") {
  auto set = examples(400);
  auto grouped = make_sampler(set, 3, true, 8), plain = make_sampler(set, 3, false, 8);
  auto spread = [&](ExampleSource& source) {
    int64_t sum = 0;
    for (int batch = 0; batch < 48; ++batch) {
      size_t low = 1000, high = 0;
      for (int i = 0; i < 8; ++i) {
        size_t n = source.next()->ids.size();
        low = std::min(low, n);
        high = std::max(high, n);
      }
      sum += static_cast<int64_t>(high - low);
    }
    return sum;
  };
  CHECK(spread(*grouped) * 3 < spread(*plain));
  auto again = make_sampler(set, 3, true, 8);
  std::vector<int32_t> all = draw(*again, 96 * 4 * 25);  // whole windows: 24 epochs
  std::vector<int> seen(400);
  for (int32_t i : all) ++seen[static_cast<size_t>(i)];
  CHECK(*std::min_element(seen.begin(), seen.end()) >= 23);
  CHECK(*std::max_element(seen.begin(), seen.end()) <= 25);
}

TEST_CASE("A sampler that is saved and restored goes on as if nothing had happened") {
  for (bool grouped : {false, true}) {
    auto whole = make_sampler(examples(50), 9, grouped, 4);
    draw(*whole, 77);
    Json state = Json::parse(whole->save().dump());
    CHECK(state["epoch"] == 77.0 / 50);
    auto other = make_sampler(examples(50), 9, grouped, 4);
    draw(*other, 3);
    other->restore(state);
    CHECK(draw(*whole, 130) == draw(*other, 130));
  }
}

TEST_CASE("A place in another order is refused") {
  Json state = make_sampler(examples(50), 9, false, 4)->save();
  test::expect_error(ErrorKind::data, {"`seed`", "9", "10"},
                     [&] { make_sampler(examples(50), 10, false, 4)->restore(state); });
  test::expect_error(ErrorKind::data, {"`examples`"},
                     [&] { make_sampler(examples(51), 9, false, 4)->restore(state); });
}

TEST_CASE("A set smaller than a batch is repeated and an empty one refused") {
  auto sampler = make_sampler(examples(3), 1, true, 8);
  std::vector<int32_t> ids = draw(*sampler, 24);
  for (int32_t i = 0; i < 3; ++i) CHECK(std::count(ids.begin(), ids.end(), i) == 8);
  test::expect_error(ErrorKind::data, {"at least one example"},
                     [] { make_sampler(examples(0), 1, false, 4); });
}
