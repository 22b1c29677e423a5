#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/base/file.h"
#include "core/base/half.h"
#include "core/base/hash.h"
#include "core/base/json.h"
#include "core/io/safetensors.h"
#include "core/io/test_models.h"
#include "kernels/backend.h"
#include "kernels/quant/decode.h"
#include "kernels/quant/double_quant.h"
#include "kernels/quant/dynamic8.h"
#include "kernels/quant/encode.h"
#include "kernels/quant/tables.h"

using namespace qlora;

namespace {

// A matrix quantized by our own code, with and without nested scales.
struct Quantized {
  std::vector<uint8_t> codes;
  std::vector<float> absmax;
  NestedScales nested;
  WeightView view;

  Quantized(Format format, std::span<const float> w, int64_t block, std::optional<float> offset = {}) {
    const auto n = static_cast<int64_t>(w.size());
    codes.resize(static_cast<size_t>(packed_bytes(format, n)));
    absmax.resize(static_cast<size_t>(block_count(n, block)));
    encode(format, w, block, codes.data(), absmax.data());
    nested = nest_scales(absmax, offset);
    view = {
        .format = format, .out = 1, .in = n, .data = codes.data(), .block = block, .absmax = absmax.data()};
  }
  WeightView nested_view() const {
    WeightView v = view;
    v.absmax = nullptr;
    v.absmax_codes = nested.codes.data();
    v.nested_absmax = nested.absmax.data();
    v.code_map = signed_dynamic_map().data();
    v.nested_offset = nested.offset;
    return v;
  }
};

std::vector<float> decoded(const WeightView& w) {
  std::vector<float> out(static_cast<size_t>(w.out * w.in));
  decode_range(w, 0, w.out * w.in, out.data());
  return out;
}

std::vector<float> scales(const WeightView& w) {
  std::vector<float> out(static_cast<size_t>(block_count(w.out * w.in, w.block)));
  for (size_t i = 0; i < out.size(); ++i) out[i] = block_absmax(w, static_cast<int64_t>(i));
  return out;
}

std::vector<uint16_t> rounded(const std::vector<float>& v) {
  std::vector<uint16_t> out(v.size());
  std::transform(v.begin(), v.end(), out.begin(), [](float x) { return to_bf16(x).bits; });
  return out;
}

template <class T>
bool same_bytes(const std::vector<T>& ours, const TensorView& golden) {
  return ours.size() * sizeof(T) == golden.bytes.size() &&
         (ours.empty() || std::memcmp(ours.data(), golden.bytes.data(), golden.bytes.size()) == 0);
}

template <class T>
std::string hash(const std::vector<T>& v) {
  return hex(sha256(std::as_bytes(std::span(v))));
}

std::vector<Path> files_in(const Path& folder, const std::string& extension) {
  std::vector<Path> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == extension) out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

// One case FORMAT.bBLOCK of one file of blockwise4. Not every file holds nested scales for every block.
void check_case(const SafetensorsFile& file, Format format, int64_t block, const std::string& prefix) {
  const TensorView* offset = file.find(prefix + ".nested.offset");
  const auto given = offset == nullptr ? std::nullopt : std::optional(to_floats(*offset)[0]);
  const Quantized q(format, to_floats(file.at("input")), block, given);
  CHECK(same_bytes(q.codes, file.at(prefix + ".packed")));
  CHECK(same_bytes(q.absmax, file.at(prefix + ".absmax")));
  CHECK(same_bytes(decoded(q.view), file.at(prefix + ".dequant_f32")));
  CHECK(same_bytes(rounded(decoded(q.view)), file.at(prefix + ".dequant_bf16")));
  if (!given) return;
  CHECK(same_bytes(q.nested.codes, file.at(prefix + ".nested.absmax_u8")));
  CHECK(same_bytes(q.nested.absmax, file.at(prefix + ".nested.nested_absmax")));
  CHECK(same_bytes(scales(q.nested_view()), file.at(prefix + ".nested.absmax_reconstructed")));
  CHECK(nest_scales(q.absmax).offset == Approx(*given).epsilon(1e-6));
  if (const TensorView* golden = file.find(prefix + ".nested.dequant_f32")) {
    CHECK(same_bytes(decoded(q.nested_view()), *golden));
    CHECK(same_bytes(rounded(decoded(q.nested_view())), file.at(prefix + ".nested.dequant_bf16")));
  }
}

// Codes and scales as bitsandbytes wrote them, on a device.
class DeviceCodes {
 public:
  DeviceCodes(Backend& backend, const SafetensorsFile& file, const std::string& prefix, Format format,
              int64_t block)
      : backend_(backend), view_{.format = format, .out = 1, .in = file.at("input").size(), .block = block} {
    view_.data = put(file.at(prefix + ".packed").bytes);
    plain_ = put(file.at(prefix + ".absmax").bytes);
    if (const TensorView* codes = file.find(prefix + ".nested.absmax_u8")) {
      nested_ = put(codes->bytes);
      view_.nested_absmax = static_cast<float*>(put(file.at(prefix + ".nested.nested_absmax").bytes));
      view_.nested_offset = to_floats(file.at(prefix + ".nested.offset"))[0];
      view_.code_map = static_cast<float*>(put(std::as_bytes(std::span(signed_dynamic_map()))));
    }
  }
  ~DeviceCodes() {
    for (auto [p, bytes] : taken_) backend_.release(p, bytes);
  }
  DeviceCodes(const DeviceCodes&) = delete;
  DeviceCodes& operator=(const DeviceCodes&) = delete;

  template <class T>
  std::vector<T> decoded(DType type, bool nested) {
    WeightView v = view_;
    if (nested) {
      v.absmax_codes = static_cast<const uint8_t*>(nested_);
    } else {
      v.absmax = static_cast<const float*>(plain_);
    }
    std::vector<T> out(static_cast<size_t>(v.in));
    void* to = put(std::as_bytes(std::span(out)));
    backend_.dequantize({.w = v, .dst = to, .type = type});
    backend_.copy(out.data(), to, out.size() * sizeof(T), CopyKind::device_to_host);
    return out;
  }

 private:
  void* put(std::span<const std::byte> bytes) {
    void* p = backend_.allocate(bytes.size());
    taken_.emplace_back(p, bytes.size());
    backend_.copy(p, bytes.data(), bytes.size(), CopyKind::host_to_device);
    return p;
  }
  Backend& backend_;
  WeightView view_;
  const void *plain_ = nullptr, *nested_ = nullptr;
  std::vector<std::pair<void*, size_t>> taken_;
};

// A linear's weight in [out, in] order: some models store it transposed.
std::vector<float> as_linear(const TensorView& view, bool transposed) {
  std::vector<float> w = to_floats(view);
  if (!transposed) return w;
  const auto in = static_cast<size_t>(view.shape[0]), out = static_cast<size_t>(view.shape[1]);
  std::vector<float> t(w.size());
  for (size_t i = 0; i < in; ++i)
    for (size_t o = 0; o < out; ++o) t[o * in + i] = w[i * out + o];
  return t;
}

}  // namespace

TEST_CASE("tables and maps equal those of bitsandbytes bit for bit", "[golden]") {
  const Path path = test::goldens() / "bitsandbytes/maps.safetensors";
  if (test::missing(path)) return;
  SafetensorsFile file(path);
  const Map8& map = signed_dynamic_map();
  CHECK(same_bytes(std::vector<float>(map.begin(), map.end()), file.at("signed_dynamic")));
  for (Format format : {Format::nf4, Format::fp4})
    with_format(format, [&]<class F>(F) {
      std::vector<float> levels, thresholds;
      for (int i = 0; i < F::kLevels; ++i) levels.push_back(F::level(i));
      if constexpr (F::kBits == 4)
        for (int i = 0; i < F::kThresholds; ++i) thresholds.push_back(F::threshold(i));
      const std::string name(name_of(format));
      CHECK(same_bytes(levels, file.at(name + "_hardcoded_cuda")));
      CHECK(same_bytes(thresholds, file.at(name + "_thresholds_cuda")));
    });
}

TEST_CASE("blockwise 4-bit codes and scales and values equal bitsandbytes", "[golden]") {
  const Path folder = test::goldens() / "bitsandbytes/blockwise4";
  if (test::missing(folder)) return;
  int cases = 0;
  for (const Path& path : files_in(folder, ".safetensors")) {
    SafetensorsFile file(path);
    for (const auto& [name, view] : file.tensors()) {
      const size_t dot = name.find(".b");
      if (!name.ends_with(".packed") || dot == std::string::npos) continue;
      const std::string prefix = name.substr(0, name.rfind('.'));
      const auto* format = std::find_if(std::begin(kFormats), std::end(kFormats),
                                        [&](Format f) { return name_of(f) == name.substr(0, dot); });
      if (format == std::end(kFormats)) {
        test::skip_part(name + " is of a format that is not registered");
        continue;
      }
      INFO(path.filename() << " " << prefix);
      const int64_t block = std::stoll(prefix.substr(dot + 2));
      if (path.filename().string().starts_with("denormal")) {  // left to the implementation, but never NaN
        for (float x : decoded(Quantized(*format, to_floats(file.at("input")), block).view))
          REQUIRE(!std::isnan(x));
      } else {
        check_case(file, *format, block, prefix);
      }
      ++cases;
    }
  }
  CHECK(cases > 0);
}

TEST_CASE("the kernels of a GPU decode the codes of bitsandbytes to its bytes", "[golden]") {
  const Path folder = test::goldens() / "bitsandbytes/blockwise4";
  if (test::missing(folder)) return;
  constexpr uintmax_t kLargest = 200'000;  // bytes of a file: the emulation is slow
  auto backend = make_backend("cuda-emulated");
  int cases = 0;
  for (const Path& path : files_in(folder, ".safetensors")) {
    if (file_size(path) > kLargest || path.filename().string().starts_with("denormal")) continue;
    SafetensorsFile file(path);
    for (Format format : {Format::nf4, Format::fp4})
      for (int64_t block : {32, 64, 128, 4096}) {
        const std::string prefix = std::string(name_of(format)) + ".b" + std::to_string(block);
        if (file.find(prefix + ".packed") == nullptr) continue;
        INFO(path.filename() << " " << prefix);
        DeviceCodes codes(*backend, file, prefix, format, block);
        CHECK(same_bytes(codes.decoded<float>(DType::f32, false), file.at(prefix + ".dequant_f32")));
        CHECK(same_bytes(codes.decoded<uint16_t>(DType::bf16, false), file.at(prefix + ".dequant_bf16")));
        ++cases;
        if (file.find(prefix + ".nested.dequant_f32") == nullptr) continue;
        CHECK(same_bytes(codes.decoded<float>(DType::f32, true), file.at(prefix + ".nested.dequant_f32")));
        CHECK(
            same_bytes(codes.decoded<uint16_t>(DType::bf16, true), file.at(prefix + ".nested.dequant_bf16")));
      }
  }
  CHECK(cases > 0);
}

TEST_CASE("blockwise 8-bit codes of the signed map equal bitsandbytes", "[golden]") {
  const Path path = test::goldens() / "bitsandbytes/blockwise8.safetensors";
  if (test::missing(path)) return;
  SafetensorsFile file(path);
  int cases = 0;
  for (const auto& [name, view] : file.tensors()) {
    const size_t dot = name.rfind(".b");
    if (!name.ends_with(".codes") || name.find("unsigned") != std::string::npos || dot == std::string::npos)
      continue;
    const std::string prefix = name.substr(0, name.rfind('.'));
    INFO(prefix);
    const int64_t block = std::stoll(prefix.substr(dot + 2));
    const std::vector<float> input = to_floats(file.at(prefix.substr(0, dot) + ".input"));
    std::vector<uint8_t> codes(input.size());
    std::vector<float> absmax(static_cast<size_t>(block_count(static_cast<int64_t>(input.size()), block)));
    encode_dynamic8(input, block, signed_dynamic_map(), codes.data(), absmax.data());
    CHECK(same_bytes(codes, view));
    CHECK(same_bytes(absmax, file.at(prefix + ".absmax")));
    std::vector<float> back(input.size());
    for (size_t i = 0; i < back.size(); ++i)
      back[i] = signed_dynamic_map()[codes[i]] * absmax[i / static_cast<size_t>(block)];
    CHECK(same_bytes(back, file.at(prefix + ".dequant")));
    ++cases;
  }
  CHECK(cases > 0);
}

TEST_CASE("every quantized linear of the tiny models has the hashes of its golden", "[golden]") {
  const Path folder = test::goldens() / "models";
  if (test::missing(folder)) return;
  int linears = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const Path curve = entry.path() / "curve_nf4.json";
    if (!std::filesystem::exists(curve)) continue;
    const Json golden = parse_json(read_file(curve), curve.string());
    const Path adapter = entry.path() / "adapter/adapter_config.json";
    const bool transposed = parse_json(read_file(adapter), adapter.string()).value("fan_in_fan_out", false);
    SafetensorsFile file(entry.path() / "model.safetensors");
    for (const auto& [name, want] : golden.at("weights").items()) {
      INFO(entry.path().filename() << " " << name);
      const Quantized q(Format::nf4, as_linear(file.at(name + ".weight"), transposed), 64);
      CHECK(q.nested.offset == want.at("nested_offset").get<float>());
      CHECK(hash(q.codes) == want.at("packed_sha256"));
      CHECK(hash(q.nested.codes) == want.at("absmax_u8_sha256"));
      CHECK(hash(q.absmax) == want.at("absmax_f32_sha256"));
      CHECK(hash(decoded(q.nested_view())) == want.at("dequantized_f32_sha256"));
      CHECK(hash(decoded(q.view)) == want.at("dequantized_f32_not_nested_sha256"));
      ++linears;
    }
  }
  CHECK(linears > 0);
}

TEST_CASE("every quantized linear of the real model has the hash of its golden", "[golden]") {
  const Path expected = test::goldens() / "smollm2/expected.json";
  if (test::missing(expected) || test::missing(test::smollm2())) return;
  const Json golden = parse_json(read_file(expected), expected.string()).at("nf4_dq_sha256");
  ModelFolder model(test::smollm2());
  CHECK(!golden.empty());
  for (const auto& [name, want] : golden.items()) {
    INFO(name);
    const TensorView* view = model.find(name + ".weight");
    REQUIRE(view != nullptr);
    CHECK(hash(decoded(Quantized(Format::nf4, to_floats(*view), 64).nested_view())) == want);
  }
}
