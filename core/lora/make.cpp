#include <cmath>

#include "core/base/check.h"
#include "core/base/philox.h"
#include "core/lora/build.h"

namespace qlora {
namespace {

// Apart from the streams of dropout, which are mix_seed(seed, stream of the linear).
constexpr uint64_t kInitStream = 1;

// Kaiming uniform with a = sqrt(5), as PEFT calls it: the bound is sqrt(6 / ((1 + 5) in)) = 1 / sqrt(in).
std::vector<float> initial_a(const LinearInfo& linear, int64_t rank, uint64_t seed) {
  PhiloxStream random(
      mix_seed(mix_seed(seed, kInitStream), stream_of(linear.name.data(), linear.name.size())));
  const float bound = 1 / std::sqrt(static_cast<float>(linear.in));
  std::vector<float> a(static_cast<size_t>(rank * linear.in));
  for (float& value : a) value = (2 * random.uniform() - 1) * bound;
  return a;
}

Param make_param(std::string name, Memory& memory, DType type, Shape shape, std::span<const float> values) {
  Param param;
  param.name = std::move(name);
  param.value = values.empty() ? Tensor::zeros(memory, shape, type, Tag::adapters)
                               : Tensor::from_floats(memory, shape, type, values, Tag::adapters);
  param.grad = Tensor::zeros(memory, shape, type, Tag::gradients);
  return param;
}

}  // namespace

Lora make_lora(const LinearInfo& linear, const LoraConfig& config, Memory& memory, DType type,
               std::span<const float> a, std::span<const float> b) {
  Lora lora;
  lora.a = make_param(linear.name + ".lora_A.weight", memory, type, {config.r, linear.in}, a);
  lora.b = make_param(linear.name + ".lora_B.weight", memory, type, {linear.out, config.r}, b);
  const double r = static_cast<double>(config.r);
  lora.scale = config.alpha / (config.use_rslora ? std::sqrt(r) : r);
  lora.dropout = config.dropout;
  lora.fan_in_fan_out = linear.order == WeightOrder::in_out;
  return lora;
}

void check_lora_config(const LoraConfig& config) {
  QLORA_CHECK(config.r >= 1, usage, "lora_r must be at least 1, found {}", config.r);
  QLORA_CHECK(config.dropout >= 0 && config.dropout < 1, usage, "lora_dropout must be in [0, 1), found {}",
              config.dropout);
  QLORA_CHECK(std::isfinite(config.alpha), usage, "lora_alpha must be a number, found {}", config.alpha);
}

std::unique_ptr<Adapter> make_adapter(const Model& model, const LoraConfig& config, Memory& memory,
                                      DType type, uint64_t seed) {
  check_lora_config(config);
  auto adapter = std::make_unique<Adapter>();
  for (const LinearInfo& linear : match_targets(model, config.targets))
    adapter->lora.emplace(linear.name,
                          make_lora(linear, config, memory, type, initial_a(linear, config.r, seed), {}));
  return adapter;
}

}  // namespace qlora
