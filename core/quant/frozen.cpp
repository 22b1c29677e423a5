#include "core/quant/frozen.h"

#include <utility>

#include "core/base/check.h"

namespace qlora {

FrozenWeight::FrozenWeight(std::string name, int64_t out, int64_t in)
    : name_(std::move(name)), out_(out), in_(in) {}

size_t FrozenWeight::bytes() const {
  size_t sum = bias_.bytes();
  for (const Tensor* t :
       {&parts_.data, &parts_.absmax, &parts_.absmax_codes, &parts_.nested_absmax, &parts_.code_map})
    sum += t->bytes();
  return sum;
}

WeightView FrozenWeight::view() const {
  WeightView w{
      .format = parts_.format, .out = out_, .in = in_, .data = parts_.data.data(), .block = parts_.block};
  if (parts_.format == Format::dense) w.type = parts_.data.type();
  if (parts_.absmax) w.absmax = parts_.absmax.as<const float>();
  if (parts_.absmax_codes) {
    w.absmax_codes = parts_.absmax_codes.as<const uint8_t>();
    w.nested_absmax = parts_.nested_absmax.as<const float>();
    w.code_map = parts_.code_map.as<const float>();
    w.nested_offset = parts_.nested_offset;
  }
  return w;
}

void FrozenWeight::forward(const Exec& exec, const Tensor& x, std::span<const LoraPart> lora,
                           const Tensor& y) const {
  const LinearTerm term{.w = view(), .bias = bias_.data(), .lora = lora, .y = y.data()};
  exec.backend.linear({.x = x.data(),
                       .rows = x.rows(),
                       .terms = std::span(&term, 1),
                       .keys = exec.keys,
                       .type = exec.type,
                       .operands = parts_.operands,
                       .numerics = exec.numerics,
                       .x_type = x.type()});
}

void FrozenWeight::backward(const Exec& exec, const Tensor& x, const Tensor& dy,
                            std::span<const LoraPart> lora, const Tensor& dx, Write mode) const {
  const LinearBackwardTerm term{.w = view(), .lora = lora, .dy = dy.data()};
  exec.backend.linear_backward({.x = x ? x.data() : nullptr,
                                .rows = dy.rows(),
                                .terms = std::span(&term, 1),
                                .keys = exec.keys,
                                .sequences = exec.sequences,
                                .dx = dx ? dx.data() : nullptr,
                                .mode = mode,
                                .type = exec.type,
                                .operands = parts_.operands,
                                .x_type = x ? x.type() : exec.type});
}

Tensor FrozenWeight::to_dense(Memory& memory, DType type) const {
  if (parts_.format != Format::dense) {
    Tensor dense(memory, {out_, in_}, type);
    memory.backend().dequantize({.w = view(), .dst = dense.data(), .type = type});
    return dense;
  }
  if (parts_.data.type() == type) {
    Tensor dense(memory, {out_, in_}, type);
    dense.copy_from(parts_.data);
    return dense;
  }
  return Tensor::from_floats(memory, {out_, in_}, type, parts_.data.to_floats());
}

}  // namespace qlora
