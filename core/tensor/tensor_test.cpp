#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/tensor/tensor.h"

using namespace qlora;
using Catch::Matchers::Contains;

TEST_CASE("tensors give back what they were made of in every float type") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  std::vector<float> values = {1.5f, -2.25f, 3, 4, 5, 6};
  for (DType type : {DType::f32, DType::f64}) {
    Tensor t = Tensor::from_floats(memory, {2, 3}, type, values);
    CHECK(t.to_floats() == values);
    CHECK(t.to_doubles() == std::vector<double>(values.begin(), values.end()));
    CHECK(t.rows() == 2);
    CHECK(t.cols() == 3);
    CHECK(t.bytes() == 6 * size_of(type));
  }
  CHECK(Tensor::zeros(memory, {3}, DType::f64).to_doubles() == std::vector<double>(3, 0.0));
}

TEST_CASE("handles share bytes and the last one frees them") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  {
    Tensor t = Tensor::zeros(memory, {4, 2}, DType::f32, Tag::adapters);
    CHECK_FALSE(t.shared());
    Tensor view = t.slice_rows(1, 3);
    CHECK(t.shared());
    view.as<float>()[0] = 7;
    CHECK(t.to_floats()[2] == 7);
    CHECK(view.reshape({4}).rows() == 4);
    t = Tensor();
    CHECK(memory.used(Tag::adapters) == 32);
    CHECK_FALSE(view.shared());
  }
  CHECK(memory.used() == 0);
}

TEST_CASE("views and copies that do not fit are refused with both shapes") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  Tensor t = Tensor::zeros(memory, {4, 2}, DType::f32);
  CHECK_THROWS_WITH(t.slice_rows(3, 5), Contains("[3, 5)") && Contains("[4, 2]"));
  CHECK_THROWS_WITH(t.reshape({3, 2}), Contains("[4, 2]") && Contains("[3, 2]"));
  CHECK_THROWS_WITH(t.copy_from(Tensor::zeros(memory, {2, 4}, DType::f64)), Contains("f64"));
  CHECK_THROWS_AS(Tensor().memory(), Error);
  CHECK_THROWS_AS(Tensor(memory, {-1}, DType::f32), Error);
}

TEST_CASE("tensors without elements behave") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  Tensor t = Tensor::zeros(memory, {0, 5}, DType::f32);
  CHECK(t);
  CHECK(t.cols() == 5);
  CHECK(t.to_floats().empty());
  CHECK_FALSE(Tensor());
  CHECK(Tensor().size() == 0);
  CHECK(Tensor().data() == nullptr);
}
