#include "core/models/decode_head.h"

#include <algorithm>

#include "core/base/half.h"

namespace qlora {

namespace {

constexpr QuantConfig kCodes = {.format = Format::int8, .block = 64};

bool is_quantized(const FrozenLinear* linear) {
  const FrozenWeight* w = linear == nullptr ? nullptr : linear->plain();
  return w != nullptr && w->parts().format != Format::dense;
}

// Whole rows at a time from a device; a slice of the source may begin and end within one.
WeightSource elements_of(const Tensor& table) {
  if (table.backend().host_memory() && table.type() == DType::bf16)
    return [&table](int64_t begin, std::span<float> out) {
      const bf16* from = table.as<bf16>() + begin;
      std::transform(from, from + out.size(), out.begin(), [](bf16 x) { return to_float(x); });
    };
  return [&table](int64_t begin, std::span<float> out) {
    const int64_t cols = table.cols(), end = begin + static_cast<int64_t>(out.size());
    const std::vector<float> rows =
        table.slice_rows(begin / cols, (end + cols - 1) / cols).to_floats();
    std::copy_n(rows.begin() + begin % cols, out.size(), out.begin());
  };
}

}  // namespace

std::shared_ptr<const FrozenLinear> decode_head(const Model& model, Memory& memory) {
  const FrozenWeight* head = model.head().plain();
  if (head == nullptr || head->parts().format != Format::dense || head->in() % kCodes.block != 0)
    return nullptr;
  if (model.linears().empty() || !is_quantized(model.find(model.linears()[0].name))) return nullptr;
  const Tensor& table = head->parts().data;
  const bool counted = dynamic_cast<CountingBackend*>(&memory.backend()) != nullptr;
  auto copy = quantize_slices(memory, head->name(), head->out(), head->in(),
                              counted ? WeightSource() : elements_of(table), kCodes, DType::f32,
                              head->parts().operands);
  copy->set_bias(head->bias());
  return copy;
}

}  // namespace qlora
