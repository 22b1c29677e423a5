#include "kernels/cases/cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <stdexcept>

#include "core/base/half.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/emulated512.h"
#include "kernels/cpu/isa.h"
#include "kernels/quant/decode.h"
#include "kernels/quant/double_quant.h"
#include "kernels/quant/dynamic8.h"
#include "kernels/quant/encode.h"
#include "kernels/test_backends.h"

namespace qlora::test {
namespace {

constexpr size_t kGuard = 256;
constexpr uint8_t kPattern = 0xFF;  // NaN in every floating-point type
const std::string kEmulated = "avx512, emulated";

}  // namespace

Device::~Device() {
  for (const Block& b : blocks_) backend_.release(b.base, b.total);
  for (auto [p, bytes] : on_host_) backend_.release_host(p, bytes);
}

void* Device::put_host(const Array& values) {
  const size_t bytes = values.size() * size_of(type_);
  void* p = backend_.allocate_host(bytes);
  on_host_.emplace_back(p, bytes);
  if (backend_.name() == "counting") return p;  // there are no bytes
  if (type_ == DType::f64) {
    std::copy(values.begin(), values.end(), static_cast<double*>(p));
  } else {
    std::transform(values.begin(), values.end(), static_cast<float*>(p),
                   [](double v) { return static_cast<float>(v); });
  }
  return p;
}

Array Device::get_host(const void* p, int64_t n) const {
  backend_.synchronize();
  if (backend_.name() == "counting") return Array(static_cast<size_t>(n));
  if (type_ == DType::f64) return {static_cast<const double*>(p), static_cast<const double*>(p) + n};
  return {static_cast<const float*>(p), static_cast<const float*>(p) + n};
}

void* Device::put_bytes(const void* data, size_t bytes, size_t before) {
  Block b{nullptr, kGuard + before, bytes, kGuard + before + bytes + kGuard};
  b.base = static_cast<std::byte*>(backend_.allocate(b.total));
  blocks_.push_back(b);
  backend_.fill(b.base, b.total, kPattern);
  if (data != nullptr) backend_.copy(b.base + b.before, data, bytes, CopyKind::host_to_device);
  return b.base + b.before;
}

void* Device::put(const Array& values) {
  size_t before = static_cast<size_t>(offset_) * size_of(type_);
  if (type_ == DType::f64) return put_bytes(values.data(), values.size() * sizeof(double), before);
  std::vector<float> rounded(values.begin(), values.end());
  return put_bytes(rounded.data(), rounded.size() * sizeof(float), before);
}

void* Device::put_bf16(const Array& values) {
  std::vector<bf16> rounded;
  for (double v : values) rounded.push_back(to_bf16(static_cast<float>(v)));
  return put_bytes(rounded.data(), rounded.size() * sizeof(bf16),
                   static_cast<size_t>(offset_) * sizeof(bf16));
}

void* Device::make(int64_t n) {
  return put_bytes(nullptr, static_cast<size_t>(n) * size_of(type_),
                   static_cast<size_t>(offset_) * size_of(type_));
}

Array Device::get(const void* p, int64_t n) const {
  if (type_ == DType::f64) return get_raw(static_cast<const double*>(p), n);
  std::vector<float> values = get_raw(static_cast<const float*>(p), n);
  return {values.begin(), values.end()};
}

void Device::check_guards() const {
  for (const Block& b : blocks_) {
    std::vector<uint8_t> bytes(b.total);
    backend_.copy(bytes.data(), b.base, b.total, CopyKind::device_to_host);
    auto clean = [](uint8_t byte) { return byte == kPattern; };
    auto begin = bytes.begin(), data = begin + static_cast<std::ptrdiff_t>(b.before);
    if (!std::all_of(begin, data, clean) ||
        !std::all_of(data + static_cast<std::ptrdiff_t>(b.size), bytes.end(), clean)) {
      throw std::runtime_error("a kernel wrote outside its operands");
    }
  }
}

std::vector<Array> evaluate(const Case& c, Backend& backend, DType type, int64_t offset,
                            const std::vector<Array>& inputs) {
  Device device(backend, type, offset, c.operands);
  std::vector<Array> results = c.run(device, inputs);
  device.check_guards();
  return results;
}

std::vector<Array> evaluate(const Case& c, Backend& backend, DType type, int64_t offset) {
  return evaluate(c, backend, type, offset, c.inputs);
}

std::vector<Case> with_bf16_operands(std::vector<Case> plain) {
  const size_t n = plain.size();
  for (size_t i = 0; i < n; ++i) {
    for (Operands operands : {Operands::bf16, Operands::bf16_amx}) {
      Case c = plain[i];
      c.operands = operands;
      c.shape += std::string(" ") + name_of(operands);
      plain.push_back(std::move(c));
    }
    plain[i].flips.clear();
  }
  return plain;
}

std::vector<Case> all_cases() {
  std::vector<Case> all;
  for (auto* family :
       {matmul_cases, linear_cases, attention_cases, row_cases, element_cases, learning_cases}) {
    for (Case& c : family()) all.push_back(std::move(c));
  }
  return all;
}

std::vector<std::string> available_backends() {
  std::vector<std::string> names = runnable_backends(EmulatedGpu::included);
  if (cpu_has_avx2()) names.push_back(kEmulated);
  return names;
}

std::unique_ptr<Backend> make_test_backend(const std::string& name) {
  return name == kEmulated ? cpu::make_cpu(cpu::emulated512_kernels()) : make_backend(name);
}

Array normals(uint64_t seed, int64_t n, double scale) {
  PhiloxStream random(mix_seed(seed, 77));
  Array values(static_cast<size_t>(n));
  for (double& v : values) {
    double radius = std::sqrt(-2 * std::log(1 - static_cast<double>(random.uniform())));
    double angle = 2 * 3.14159265358979 * static_cast<double>(random.uniform());
    v = static_cast<double>(static_cast<float>(scale * radius * std::cos(angle)));
  }
  return values;
}

std::vector<RowKey> row_keys(int64_t rows) {
  std::vector<RowKey> keys;
  for (int64_t r = 0; r < rows; ++r) {
    keys.push_back({static_cast<uint32_t>(r / 5 * 3 + 1), static_cast<uint32_t>(r % 5 + 2)});
  }
  return keys;
}

std::string TestWeight::name() const {
  std::string text(name_of(format));
  if (format == Format::dense) return text + (wide ? " f32" : "");
  return text + (absmax_codes.empty() ? "" : "+dq") + " block " + std::to_string(block);
}

WeightView TestWeight::view(Device& device, const Array* elements) const {
  WeightView v{.format = format, .out = out, .in = in};
  if (format == Format::dense) {
    const Array& values = elements != nullptr ? *elements : dense;
    const bool narrow = is_bf16(device.operands()) && !wide;
    v.type = narrow ? DType::bf16 : device.type();
    v.data = narrow ? device.put_bf16(values) : device.put(values);
    return v;
  }
  v.data = device.put_raw(codes);
  v.block = block;
  v.absmax = device.put_raw(absmax);
  v.absmax_codes = device.put_raw(absmax_codes);
  v.nested_absmax = device.put_raw(nested_absmax);
  v.code_map = device.put_raw(code_map);
  v.nested_offset = nested_offset;
  return v;
}

TestWeight make_weight(uint64_t seed, Format format, bool double_quant, int64_t out, int64_t in,
                       int64_t block) {
  TestWeight w{.format = format, .out = out, .in = in, .block = block, .dense = normals(seed, out * in, 0.1)};
  if (format == Format::dense) return w;
  std::vector<float> values(w.dense.begin(), w.dense.end());
  w.codes.resize(static_cast<size_t>(packed_bytes(format, out * in)));
  w.absmax.resize(static_cast<size_t>(block_count(out * in, block)));
  encode(format, values, block, w.codes.data(), w.absmax.data());
  if (double_quant) {
    NestedScales scales = nest_scales(w.absmax);
    w.absmax_codes = scales.codes;
    w.nested_absmax = scales.absmax;
    w.nested_offset = scales.offset;
    w.code_map.assign(signed_dynamic_map().begin(), signed_dynamic_map().end());
    w.absmax.clear();
  }
  WeightView v{.format = format, .out = out, .in = in, .data = w.codes.data(), .block = block};
  v.absmax = w.absmax.empty() ? nullptr : w.absmax.data();
  v.absmax_codes = w.absmax_codes.data();
  v.nested_absmax = w.nested_absmax.data();
  v.code_map = w.code_map.data();
  v.nested_offset = w.nested_offset;
  decode_range(v, 0, out * in, values.data());
  w.dense.assign(values.begin(), values.end());
  return w;
}

double error_in_whole_numbers(const TestWeight& w, const Array& x) {
  const auto largest = [](const Array& values) {
    double most = 0;
    for (double v : values) most = std::max(most, std::abs(v));
    return most;
  };
  const double most_w = largest(w.dense), most_x = largest(x);
  double of_operands = 0;  // the largest sum of |x w|
  for (auto row = x.begin(); row != x.end(); row += w.in)
    for (auto out = w.dense.begin(); out != w.dense.end(); out += w.in)
      of_operands =
          std::max(of_operands, std::inner_product(row, row + w.in, out, 0.0, std::plus<>(),
                                                   [](double a, double b) { return std::abs(a * b); }));
  return 0x1p-8 * of_operands + 1.01 * std::exp2(-12.5) * static_cast<double>(w.in) * most_w * most_x;
}

}  // namespace qlora::test
