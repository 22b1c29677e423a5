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

// All of it, without a branch per element, so that the loop vectorizes.
bool all_finite(std::span<const float> w) {
  int32_t largest = 0;
  for (float x : w) largest = std::max(largest, std::bit_cast<int32_t>(x) & 0x7fffffff);
  return largest < 0x7f800000;
}

// A host matrix on its way in.
struct Matrix {
  const std::string& name;
  int64_t out, in;
  const WeightSource& source;

  // `take` gets every slice, and where it begins.
  template <class Take>
  void each_slice(const Take& take) const {
    std::vector<float> buffer(static_cast<size_t>(std::min(kQuantizeSlice, out * in)));
    for (int64_t begin = 0; begin < out * in; begin += kQuantizeSlice) {
      const auto n = static_cast<size_t>(std::min(kQuantizeSlice, out * in - begin));
      const std::span<float> slice = std::span(buffer).first(n);
      source(begin, slice);
      take(begin, std::span<const float>(slice));
    }
  }

  // Looks for the element to name, once it is known that there is one.
  [[noreturn]] void fail_not_finite(int64_t begin, std::span<const float> slice) const {
    auto at = std::find_if_not(slice.begin(), slice.end(), [](float x) { return std::isfinite(x); });
    const int64_t place = begin + (at - slice.begin());
    fail(ErrorKind::data,
         "weight `{}` holds {} at row {}, column {}: the model file is damaged, or the model diverged", name,
         *at, place / in, place % in);
  }
};

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

FrozenWeight::Parts encoded(Memory& memory, const Matrix& w, const QuantConfig& config) {
  const int64_t n = w.out * w.in;
  FrozenWeight::Parts p;
  p.format = config.format;
  p.block = config.block;
  p.data = room(memory, packed_bytes(config.format, n), DType::u8);
  std::vector<uint8_t> codes(static_cast<size_t>(packed_bytes(config.format, std::min(kQuantizeSlice, n))));
  std::vector<float> absmax(static_cast<size_t>(block_count(n, config.block)));
  w.each_slice([&](int64_t begin, std::span<const float> slice) {
    const auto first = static_cast<size_t>(begin / config.block);
    const auto blocks = static_cast<size_t>(block_count(static_cast<int64_t>(slice.size()), config.block));
    encode(config.format, slice, config.block, codes.data(), absmax.data() + first);
    if (!all_finite(std::span(absmax).subspan(first, blocks))) w.fail_not_finite(begin, slice);
    const int64_t bytes = packed_bytes(config.format, static_cast<int64_t>(slice.size()));
    memory.backend().copy(p.data.as<std::byte>() + packed_bytes(config.format, begin), codes.data(),
                          static_cast<size_t>(bytes), CopyKind::host_to_device);
  });
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

std::shared_ptr<FrozenWeight> quantize_slices(Memory& memory, std::string name, int64_t out, int64_t in,
                                              const WeightSource& source, const QuantConfig& config,
                                              DType compute_type, Operands operands) {
  check_config(config);
  QLORA_CHECK(out > 0 && in > 0, failure, "quantize `{}`: [{}, {}] holds nothing", name, out, in);
  const Matrix w{name, out, in, source};
  FrozenWeight::Parts p;
  if (config.format != Format::dense) {
    p = source ? encoded(memory, w, config) : planned(memory, out * in, config);
  } else {
    p.data = Tensor(memory, {out, in}, dense_type(compute_type, operands), Tag::weights);
    if (source)
      w.each_slice([&](int64_t begin, std::span<const float> slice) {
        if (!all_finite(slice)) w.fail_not_finite(begin, slice);
        p.data.write_floats(begin, slice);
      });
  }
  p.operands = operands;
  auto weight = std::make_shared<FrozenWeight>(std::move(name), out, in);
  weight->set_parts(std::move(p));
  return weight;
}

size_t quantize_scratch(int64_t elements, const QuantConfig& config) {
  // A slice as floats, and as doubles or bf16 where it is stored so.
  const size_t slice =
      static_cast<size_t>(std::min(kQuantizeSlice, elements)) * (sizeof(float) + sizeof(double));
  if (config.format == Format::dense) return slice;
  // Its codes, and all scales before they are uploaded; scales of scales are less than the scales.
  const auto scales = static_cast<size_t>(block_count(elements, config.block)) * sizeof(float);
  const int64_t codes = packed_bytes(config.format, std::min(kQuantizeSlice, elements));
  return slice + static_cast<size_t>(codes) + 2 * scales;
}

std::shared_ptr<FrozenWeight> quantize(Memory& memory, std::string name, int64_t out, int64_t in,
                                       std::span<const float> w, const QuantConfig& config,
                                       DType compute_type, Operands operands) {
  QLORA_CHECK(w.empty() || static_cast<int64_t>(w.size()) == out * in, failure,
              "quantize `{}`: [{}, {}] does not fit {} elements", name, out, in, w.size());
  WeightSource copy;
  if (!w.empty())
    copy = [w](int64_t begin, std::span<float> slice) {
      std::copy_n(w.begin() + begin, slice.size(), slice.begin());
    };
  return quantize_slices(memory, std::move(name), out, in, copy, config, compute_type, operands);
}

}  // namespace qlora
