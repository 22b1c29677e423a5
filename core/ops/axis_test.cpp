#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/ops/axis.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

// Two sequences of 3 and 2 rows, a span each.
Axis good() {
  return {.tokens = {5, 6, 7, 8, 9},
          .positions = {0, 1, 2, 4, 5},
          .keys = std::vector<RowKey>(5),
          .cu = {0, 3, 5},
          .spans = {{0, 3}, {3, 5}}};
}

std::string complaint(Axis a) {
  try {
    a.validate(10);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("an axis in order is accepted also with empty sequences and spans") {
  CHECK(complaint(good()).empty());
  Axis a = good();
  a.cu = {0, 0, 3, 3, 5, 5};
  a.spans = {{0, 0}, {0, 3}, {3, 3}, {3, 5}};
  CHECK(complaint(a).empty());
  CHECK(a.sequences() == 5);
}

TEST_CASE("the first broken rule of an axis is named") {
  auto broken = [](auto&& change) {
    Axis a = good();
    change(a);
    return complaint(a);
  };
  CHECK_THAT(broken([](Axis& a) { a.positions.pop_back(); }), Contains("5 tokens, 4 positions"));
  CHECK_THAT(broken([](Axis& a) { a.cu = {0, 3}; }), Contains("cover the 5 rows"));
  CHECK_THAT(broken([](Axis& a) { a.cu = {0, 4, 3, 5}; }), Contains("must not fall"));
  CHECK_THAT(broken([](Axis& a) { a.tokens[1] = 10; }), Contains("token 10 of row 1 is outside 0..9"));
  CHECK_THAT(broken([](Axis& a) { a.tokens[1] = -1; }), Contains("token -1"));
  CHECK_THAT(broken([](Axis& a) { a.positions[2] = 3; }), Contains("stands at position 3, not 2"));
  CHECK_THAT(broken([](Axis& a) { a.positions[0] = -1; }), Contains("position -1"));
  CHECK_THAT(broken([](Axis& a) { a.spans = {{0, 2}, {2, 5}}; }), Contains("span [0, 2) cuts a sequence"));
  CHECK_THAT(broken([](Axis& a) { a.spans = {{0, 3}}; }), Contains("spans end at row 3 of 5"));
  CHECK_THAT(broken([](Axis& a) { a.spans = {{0, 3}, {0, 5}}; }), Contains("does not follow row 3"));
}

TEST_CASE("an adapter finds its pairs by name and lists its parameters in a fixed order") {
  Adapter a;
  a.lora["b"].a.name = "b.a";
  a.lora["a"].b.name = "a.b";
  CHECK(a.find("a") == &a.lora["a"]);
  CHECK(a.find("c") == nullptr);
  std::vector<Param*> params = a.params();
  REQUIRE(params.size() == 4);
  CHECK(params[1]->name == "a.b");
  CHECK(params[2]->name == "b.a");
  CHECK(a.size() == 0);
}

TEST_CASE("wanted rows of an axis keep their keys, sequences and adapters") {
  Axis a = good();
  for (uint32_t i = 0; i < 5; ++i) a.keys[i] = {i, 10 + i};
  const WantedRows some = wanted_rows(a, {0, 2, 4});
  CHECK(some.axis.tokens == std::vector<int32_t>{5, 7, 9});
  CHECK(some.axis.positions == std::vector<int32_t>{0, 2, 5});
  CHECK(some.axis.keys[1].position == 12);
  CHECK(some.axis.cu == std::vector<int32_t>{0, 2, 3});
  CHECK(some.axis.spans[0].hi == 2);
  CHECK(some.axis.spans[1].lo == 2);
  CHECK(some.axis.spans[1].hi == 3);
  const WantedRows none_of_first = wanted_rows(a, {3});
  CHECK(none_of_first.axis.cu == std::vector<int32_t>{0, 0, 1});
  CHECK(none_of_first.axis.spans[0].lo == none_of_first.axis.spans[0].hi);
}
