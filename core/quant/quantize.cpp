#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "core/base/check.h"
#include "core/quant/frozen.h"
#include "kernels/quant/decode.h"
#include "kernels/quant/double_quant.h"
#include "kernels/quant/dynamic8.h"
#include "kernels/quant/encode.h"

namespace qlora {
namespace {

void check_config(const QuantConfig& c) {
  if (c.format == Format::dense) return;
  QLORA_CHECK(c.block >= 32 && c.block <= 4096 && std::has_single_bit(static_cast<uint64_t>(c.block)), usage,
              "quantization block {}: expected a power of two from 32 to 4096", c.block);
  QLORA_CHECK(!c.double_quant || c.nested_block == kNestedBlock, usage,
              "nested quantization block {}: only {} exists", c.nested_block, kNestedBlock);
}

// Looks for the element to name, once it is known that there is one.
[[noreturn]] void fail_not_finite(const std::string& name, int64_t in, std::span<const float> w) {
  auto at = std::find_if_not(w.begin(), w.end(), [](float x) { return std::isfinite(x); }) - w.begin();
  fail(ErrorKind::data,
       "weight `{}` holds {} at row {}, column {}: the model file is damaged, or the model diverged", name,
       w[static_cast<size_t>(at)], at / in, at % in);
}

// All of it, without a branch per element, so that the loop vectorizes.
bool all_finite(std::span<const float> w) {
  int32_t largest = 0;
  for (float x : w) largest = std::max(largest, std::bit_cast<int32_t>(x) & 0x7fffffff);
  return largest < 0x7f800000;
}

template <class T>
Tensor upload(Memory& memory, const std::vector<T>& v) {
  return Tensor::from_host(memory, {static_cast<int64_t>(v.size())}, dtype_of<T>(),
                           std::as_bytes(std::span(v)), Tag::weights);
}

Tensor room(Memory& memory, int64_t n, DType type) {
  return Tensor(memory, {n}, type, Tag::weights);
}

// The right sizes with undefined content.
FrozenWeight::Parts planned(Memory& memory, int64_t n, const QuantConfig& config) {
  FrozenWeight::Parts p;
  p.format = config.format;
  p.block = config.block;
  const int64_t blocks = block_count(n, config.block);
  p.data = room(memory, packed_bytes(config.format, n), DType::u8);
  if (!config.double_quant) {
    p.absmax = room(memory, blocks, DType::f32);
    return p;
  }
  p.absmax_codes = room(memory, blocks, DType::u8);
  p.nested_absmax = room(memory, block_count(blocks, kNestedBlock), DType::f32);
  p.code_map = room(memory, static_cast<int64_t>(signed_dynamic_map().size()), DType::f32);
  return p;
}

FrozenWeight::Parts encoded(Memory& memory, const std::string& name, int64_t in, std::span<const float> w,
                            const QuantConfig& config) {
  const auto n = static_cast<int64_t>(w.size());
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(config.format, n)));
  std::vector<float> absmax(static_cast<size_t>(block_count(n, config.block)));
  encode(config.format, w, config.block, codes.data(), absmax.data());
  if (!all_finite(absmax)) fail_not_finite(name, in, w);

  FrozenWeight::Parts p;
  p.format = config.format;
  p.block = config.block;
  p.data = upload(memory, codes);
  if (!config.double_quant) {
    p.absmax = upload(memory, absmax);
    return p;
  }
  const NestedScales nested = nest_scales(absmax);
  const Map8& map = signed_dynamic_map();
  p.absmax_codes = upload(memory, nested.codes);
  p.nested_absmax = upload(memory, nested.absmax);
  p.code_map = upload(memory, std::vector<float>(map.begin(), map.end()));
  p.nested_offset = nested.offset;
  return p;
}

}  // namespace

std::shared_ptr<FrozenWeight> quantize(Memory& memory, std::string name, int64_t out, int64_t in,
                                       std::span<const float> w, const QuantConfig& config,
                                       DType compute_type, Operands operands) {
  check_config(config);
  QLORA_CHECK(out > 0 && in > 0 && (w.empty() || static_cast<int64_t>(w.size()) == out * in), failure,
              "quantize `{}`: [{}, {}] does not fit {} elements", name, out, in, w.size());
  auto weight = std::make_shared<FrozenWeight>(name, out, in);
  FrozenWeight::Parts p;
  if (config.format != Format::dense) {
    p = w.empty() ? planned(memory, out * in, config) : encoded(memory, name, in, w, config);
  } else if (w.empty()) {
    p.data = Tensor(memory, {out, in}, dense_type(compute_type, operands), Tag::weights);
  } else {
    if (!all_finite(w)) fail_not_finite(name, in, w);
    p.data = Tensor::from_floats(memory, {out, in}, dense_type(compute_type, operands), w, Tag::weights);
  }
  p.operands = operands;
  weight->set_parts(std::move(p));
  return weight;
}

}  // namespace qlora
