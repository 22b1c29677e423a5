// The weights that a loaded model computes with, read back from every backend, against those of bitsandbytes.

#include <catch2/catch.hpp>

#include "core/base/hash.h"
#include "core/io/test_models.h"
#include "core/models/golden_models.h"
#include "kernels/test_backends.h"

using namespace qlora;
using namespace qlora::test;

namespace {

std::string hash_of_dense(const Model& model, Memory& memory, const std::string& linear) {
  const FrozenLinear* weight = model.find(linear);
  REQUIRE(weight != nullptr);
  const std::vector<float> dense = weight->to_dense(memory, DType::f32).to_floats();
  return hex(sha256(std::as_bytes(std::span(dense))));
}

}  // namespace

TEST_CASE("linears of a quantized golden model have the values of bitsandbytes on every backend",
          "[golden]") {
  if (missing(golden_models_path())) return;
  for (const Path& golden : golden_models()) {
    if (!std::filesystem::exists(golden / "curve_nf4.json")) continue;
    const Json weights = read_golden_json(golden / "curve_nf4.json").at("weights");
    CHECK(!weights.empty());
    for (const std::string& name : runnable_backends()) {
      for (bool double_quant : {true, false}) {
        auto backend = make_backend(name);
        Memory memory(*backend);
        auto model =
            load_model(golden, memory, {.quant = {.format = Format::nf4, .double_quant = double_quant}});
        for (const auto& [linear, want] : weights.items()) {
          INFO(golden.filename().string()
               << " " << linear << " on " << name << ", double quantization " << double_quant);
          CHECK(hash_of_dense(*model, memory, linear) ==
                want.at(double_quant ? "dequantized_f32_sha256" : "dequantized_f32_not_nested_sha256"));
        }
      }
    }
  }
}

TEST_CASE("linears of a quantized SmolLM2 have the values of bitsandbytes", "[golden]") {
  const Path expected = goldens() / "smollm2/expected.json";
  if (missing(expected) || missing(smollm2())) return;
  const Json hashes = read_golden_json(expected).at("nf4_dq_sha256");
  auto backend = make_backend("auto");
  Memory memory(*backend);
  auto model = load_model(smollm2(), memory, {.quant = {.format = Format::nf4, .double_quant = true}});
  CHECK(hashes.size() == model->linears().size());
  for (const auto& [linear, want] : hashes.items()) {
    INFO(linear);
    CHECK(hash_of_dense(*model, memory, linear) == want);
  }
}
