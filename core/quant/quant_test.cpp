#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "core/base/philox.h"
#include "core/quant/frozen.h"
#include "kernels/quant/decode.h"
#include "kernels/quant/encode.h"

using namespace qlora;
using Catch::Matchers::Contains;

namespace {

std::vector<float> numbers(int64_t n, uint64_t seed) {
  std::vector<float> v(static_cast<size_t>(n));
  for (size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<float>(philox(seed, static_cast<uint32_t>(i), 0, 0, 0).v[0] * 0x1p-31 - 1);
  return v;
}

const QuantConfig kConfigs[] = {
    {.format = Format::dense},
    {.format = Format::nf4},
    {.format = Format::fp4, .block = 32},
    {.format = Format::nf4, .double_quant = true},
    {.format = Format::fp4, .double_quant = true, .block = 128},
    {.format = Format::int8},
    {.format = Format::int8, .double_quant = true, .block = 128},
};

double dot(const Tensor& a, const Tensor& b) {
  std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace

TEST_CASE("a frozen linear multiplies by its dense form forwards and backwards") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  const int64_t rows = 3, out = 17, in = 50;  // blocks straddle rows
  for (const QuantConfig& config : kConfigs) {
    auto w = quantize(memory, "w", out, in, numbers(out * in, 1), config, DType::f32);
    auto dense =
        quantize(memory, "dense", out, in, w->to_dense(memory, DType::f32).to_floats(), {}, DType::f32);
    for (auto& weight : {w, dense})
      weight->set_bias(Tensor::from_floats(memory, {out}, DType::f32, numbers(out, 2)));
    Exec exec{.backend = *backend, .memory = memory};
    Tensor x = Tensor::from_floats(memory, {rows, in}, DType::f32, numbers(rows * in, 3));
    Tensor dy = Tensor::from_floats(memory, {rows, out}, DType::f32, numbers(rows * out, 4));
    Tensor y(memory, {rows, out}, DType::f32), z(memory, {rows, out}, DType::f32);
    Tensor dx(memory, {rows, in}, DType::f32), dz(memory, {rows, in}, DType::f32);
    w->forward(exec, x, {}, y);
    dense->forward(exec, x, {}, z);
    CHECK(y.to_floats() == z.to_floats());
    w->backward(exec, {}, dy, {}, dx, Write::overwrite);
    dense->backward(exec, {}, dy, {}, dz, Write::overwrite);
    CHECK(dx.to_floats() == dz.to_floats());
    for (auto& weight : {w, dense}) weight->set_bias({});
    w->forward(exec, x, {}, y);
    CHECK(dot(dy, y) == Approx(dot(dx, x)).margin(1e-5));
  }
}

TEST_CASE("the dense form is what the plain decoder gives in every type") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  for (const QuantConfig& config : kConfigs) {
    auto w = quantize(memory, "w", 9, 33, numbers(297, 5), config, DType::f32);
    std::vector<float> dense = w->to_dense(memory, DType::f32).to_floats();
    if (config.format == Format::dense) {
      CHECK(dense == numbers(297, 5));
    } else {
      std::vector<float> plain(297);
      decode_range(w->view(), 0, 297, plain.data());
      CHECK(dense == plain);
    }
    std::vector<float> wide = w->to_dense(memory, DType::f64).to_floats();
    CHECK(wide == dense);
  }
}

TEST_CASE("a planned weight takes the bytes of a real one") {
  auto real = make_backend("reference");
  auto counting = make_counting_backend();
  for (const QuantConfig& config : kConfigs) {
    Memory a(*real), b(*counting);
    auto w = quantize(a, "w", 40, 1000, numbers(40000, 1), config, DType::f32);
    auto plan = quantize(b, "w", 40, 1000, {}, config, DType::f32);
    CHECK(w->bytes() == plan->bytes());
    CHECK(a.used(Tag::weights) == b.used(Tag::weights));
    CHECK(w->bytes() == a.used(Tag::weights));
  }
  Memory memory(*real);
  auto w = quantize(memory, "w", 64, 1024, numbers(65536, 1), {.format = Format::nf4, .double_quant = true},
                    DType::f32);
  CHECK(w->bytes() == 65536 / 2 + 1024 + 4 * 4 + 4 * 256);  // codes, scale codes, nested scales, their map
  auto whole = quantize(memory, "w", 64, 1024, numbers(65536, 1), {.format = Format::int8}, DType::f32);
  CHECK(whole->bytes() == 65536 + 4 * 1024);
}

TEST_CASE("NaN and infinity in a weight name the weight and the element") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  for (const QuantConfig& config : kConfigs)
    for (float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      std::vector<float> v = numbers(40 * 50, 1);
      v[7 * 50 + 13] = bad;
      CHECK_THROWS_WITH(quantize(memory, "layers.0.q", 40, 50, v, config, DType::f32),
                        Contains("`layers.0.q`") && Contains("row 7, column 13"));
    }
}

TEST_CASE("a matrix of many slices gets the bytes of a whole one") {
  auto backend = make_backend("auto");
  Memory memory(*backend);
  const int64_t side = 1025, n = side * side;
  REQUIRE(n > kQuantizeSlice);
  std::vector<float> v = numbers(n, 1);
  std::vector<int64_t> begins;
  const WeightSource source = [&](int64_t begin, std::span<float> out) {
    begins.push_back(begin);
    std::copy_n(v.begin() + begin, out.size(), out.begin());
  };
  for (Format format : {Format::nf4, Format::int8}) {
    const QuantConfig config{.format = format};
    begins.clear();
    auto w = quantize_slices(memory, "w", side, side, source, config, DType::f32);
    CHECK(begins == std::vector<int64_t>{0, kQuantizeSlice});
    std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(format, n)));
    std::vector<float> absmax(static_cast<size_t>(block_count(n, config.block)));
    encode_plain(format, v, config.block, codes.data(), absmax.data());
    const WeightView view = w->view();
    CHECK(std::equal(codes.begin(), codes.end(), static_cast<const uint8_t*>(view.data)));
    CHECK(std::equal(absmax.begin(), absmax.end(), view.absmax));
  }
  CHECK(quantize_slices(memory, "w", side, side, source, {}, DType::f32)
            ->to_dense(memory, DType::f32)
            .to_floats() == v);

  v[static_cast<size_t>(n - 2)] = std::numeric_limits<float>::infinity();
  for (const QuantConfig& each : {QuantConfig{.format = Format::nf4}, QuantConfig{}})
    CHECK_THROWS_WITH(quantize_slices(memory, "w", side, side, source, each, DType::f32),
                      Contains("row 1024, column 1023"));
}

TEST_CASE("block sizes that bitsandbytes does not know are refused") {
  auto backend = make_backend("reference");
  Memory memory(*backend);
  std::vector<float> v = numbers(64, 1);
  for (int64_t block : {0, 16, 48, 65, 8192})
    CHECK_THROWS_WITH(quantize(memory, "w", 8, 8, v, {.format = Format::nf4, .block = block}, DType::f32),
                      Contains("power of two"));
  QuantConfig nested{.format = Format::nf4, .double_quant = true, .nested_block = 128};
  CHECK_THROWS_WITH(quantize(memory, "w", 8, 8, v, nested, DType::f32), Contains("256"));
}
