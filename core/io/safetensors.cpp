#include "core/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/base/check.h"
#include "core/base/half.h"
#include "core/base/json.h"
#include "core/base/names.h"

namespace qlora {
namespace {

struct TypeName {
  const char* name;
  DType type;
};
constexpr TypeName kTypes[] = {
    {"F32", DType::f32}, {"F64", DType::f64},      {"BF16", DType::bf16}, {"F16", DType::f16},
    {"I8", DType::i8},   {"U8", DType::u8},        {"I16", DType::i16},   {"I32", DType::i32},
    {"I64", DType::i64}, {"BOOL", DType::boolean},
};
constexpr const char* kMetadata = "__metadata__";

// Elements of a shape; -1 when a size is negative or the product does not fit.
int64_t count(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(n, size, &n)) return -1;
  return n;
}

size_t byte_count(const TensorInfo& t) {
  const int64_t n = count(t.shape);
  QLORA_CHECK(n >= 0, failure, "tensor `{}` cannot have the shape [{}]", t.name, fmt::join(t.shape, ", "));
  return static_cast<size_t>(n) * size_of(t.type);
}

// One reading of a file: what its checks need to name the place.
class Reader {
 public:
  Reader(const Path& path, std::span<const std::byte> bytes) : path_(path.string()), bytes_(bytes) {}

  Json header() {
    QLORA_CHECK(bytes_.size() >= 8, data, "{}: {} bytes: too short for a safetensors file", path_,
                bytes_.size());
    uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), 8);
    QLORA_CHECK(
        length <= bytes_.size() - 8, data,
        "{}: the header is said to have {} bytes, but {} follow: truncated, or not a safetensors file", path_,
        length, bytes_.size() - 8);
    data_ = bytes_.subspan(8 + static_cast<size_t>(length));
    const char* text = reinterpret_cast<const char*>(bytes_.data()) + 8;
    std::set<std::string> seen;
    auto refuse_twice = [&](int depth, Json::parse_event_t event, const Json& key) {
      if (event == Json::parse_event_t::key && depth == 1)
        QLORA_CHECK(seen.insert(key.get<std::string>()).second, data,
                    "{}: tensor `{}` is in the header twice", path_, key.get<std::string>());
      return true;
    };
    try {
      Json header = Json::parse(text, text + length, refuse_twice);
      QLORA_CHECK(header.is_object(), data, "{}: the header is not a JSON object", path_);
      return header;
    } catch (const Json::exception& e) {
      fail(ErrorKind::data, "{}: the header is not valid JSON: {}", path_, e.what());
    }
  }

  TensorView tensor(const std::string& name, const Json& entry) const {
    TensorView view;
    uint64_t begin = 0, end = 0;
    std::string type;
    try {
      type = entry.at("dtype").get<std::string>();
      QLORA_CHECK(entry.at("shape").is_array(), data, "{}: tensor `{}`: the shape is not a list", path_,
                  name);
      for (const Json& size : entry["shape"]) view.shape.push_back(integer(name, size));
      QLORA_CHECK(entry.at("data_offsets").size() == 2, data,
                  "{}: tensor `{}`: data_offsets are not two numbers", path_, name);
      begin = static_cast<uint64_t>(integer(name, entry["data_offsets"][0]));
      end = static_cast<uint64_t>(integer(name, entry["data_offsets"][1]));
    } catch (const Json::exception& e) {
      fail(ErrorKind::data, "{}: tensor `{}`: bad header entry: {}", path_, name, e.what());
    }
    const auto* known =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](auto& t) { return t.name == type; });
    QLORA_CHECK(known != std::end(kTypes), data,
                "{}: tensor `{}` has the element type {}, which is not supported", path_, name, type);
    view.type = known->type;
    QLORA_CHECK(begin <= end && end <= data_.size(), data,
                "{}: tensor `{}` lies at bytes {} to {} of the data, but there are {}: truncated file?",
                path_, name, begin, end, data_.size());
    const int64_t n = count(view.shape);
    const auto element = static_cast<int64_t>(size_of(view.type));
    QLORA_CHECK(n >= 0 && n <= std::numeric_limits<int64_t>::max() / element &&
                    static_cast<uint64_t>(n * element) == end - begin,
                data, "{}: tensor `{}` of type {} and shape [{}] does not fill its {} bytes", path_, name,
                type, fmt::join(view.shape, ", "), end - begin);
    view.bytes = data_.subspan(begin, end - begin);
    return view;
  }

  // The format allows neither overlaps nor bytes that belong to nobody.
  void check_cover(const std::map<std::string, TensorView, std::less<>>& tensors) const {
    std::vector<std::pair<size_t, std::string_view>> order;
    for (const auto& [name, view] : tensors)
      if (!view.bytes.empty()) order.emplace_back(view.bytes.data() - data_.data(), name);
    std::sort(order.begin(), order.end());
    size_t end = 0;
    for (const auto& [begin, name] : order) {
      QLORA_CHECK(begin >= end, data, "{}: tensor `{}` overlaps another one", path_, name);
      QLORA_CHECK(begin == end, data,
                  "{}: bytes {} to {} of the data, before tensor `{}`, belong to no tensor", path_, end,
                  begin, name);
      end = begin + tensors.find(name)->second.bytes.size();
    }
    QLORA_CHECK(end == data_.size(), data, "{}: {} bytes follow the last tensor", path_, data_.size() - end);
  }

 private:
  int64_t integer(const std::string& name, const Json& value) const {
    QLORA_CHECK(value.is_number_unsigned() && value.get<uint64_t>() <= std::numeric_limits<int64_t>::max(),
                data, "{}: tensor `{}`: `{}` in the header is not a size", path_, name, value.dump());
    return value.get<int64_t>();
  }

  std::string path_;
  std::span<const std::byte> bytes_, data_;
};

template <class T>
void widen(const TensorView& view, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    T x;  // the bytes may be misaligned
    std::memcpy(&x, view.bytes.data() + i * sizeof(T), sizeof(T));
    if constexpr (std::is_same_v<T, double>)
      out[i] = static_cast<float>(x);
    else
      out[i] = to_float(x);
  }
}

}  // namespace

int64_t TensorView::size() const {
  return count(shape);
}

TensorView TensorView::elements(int64_t lo, int64_t hi) const {
  const size_t width = size_of(type);
  return {
      type, {hi - lo}, bytes.subspan(static_cast<size_t>(lo) * width, static_cast<size_t>(hi - lo) * width)};
}

std::vector<float> to_floats(const TensorView& view) {
  std::vector<float> out(static_cast<size_t>(view.size()));
  to_floats(view, out);
  return out;
}

void to_floats(const TensorView& view, std::span<float> all) {
  const std::span<float> out = all.first(static_cast<size_t>(view.size()));
  switch (view.type) {
    case DType::f32:
      if (!out.empty()) std::memcpy(out.data(), view.bytes.data(), view.bytes.size());
      break;
    case DType::f64:
      widen<double>(view, out);
      break;
    case DType::bf16:
      widen<bf16>(view, out);
      break;
    case DType::f16:
      widen<f16>(view, out);
      break;
    default:
      fail(ErrorKind::data, "a tensor of type {} holds no floating-point numbers", name_of(view.type));
  }
}

SafetensorsFile::SafetensorsFile(const Path& path) : file_(path) {
  Reader reader(path, file_.bytes());
  const Json header = reader.header();
  for (const auto& [name, entry] : header.items()) {
    if (name != kMetadata) {
      tensors_.emplace(name, reader.tensor(name, entry));
      continue;
    }
    QLORA_CHECK(entry.is_object(), data, "{}: {} is not an object", path.string(), kMetadata);
    for (const auto& [key, value] : entry.items()) {
      QLORA_CHECK(value.is_string(), data, "{}: {}: `{}` is not a string", path.string(), kMetadata, key);
      metadata_.emplace(key, value.get<std::string>());
    }
  }
  reader.check_cover(tensors_);
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  auto at = tensors_.find(name);
  return at == tensors_.end() ? nullptr : &at->second;
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  if (const TensorView* view = find(name)) return *view;
  std::vector<std::string> known;
  for (const auto& [other, view] : tensors_) known.push_back(other);
  std::string near = nearest(name, known);
  fail(ErrorKind::data, "{}: no tensor `{}`{}", path().string(), name,
       near.empty() ? fmt::format(" among its {}", known.size()) : fmt::format("; did you mean `{}`?", near));
}

SafetensorsWriter::SafetensorsWriter(const Path& path, std::vector<TensorInfo> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path), order_(std::move(tensors)), file_(path) {
  std::sort(order_.begin(), order_.end(), [](auto& a, auto& b) { return a.name < b.name; });
  Json header = Json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  size_t offset = 0;
  for (const TensorInfo& t : order_) {
    const size_t end = offset + byte_count(t);
    const auto* known =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](auto& k) { return k.type == t.type; });
    QLORA_CHECK(t.name != kMetadata && !header.contains(t.name), failure,
                "cannot write {}: the tensor name `{}` is given twice or reserved", path.string(), t.name);
    header[t.name] = {{"dtype", known->name}, {"shape", t.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = canonical(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(text);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  QLORA_CHECK(next_ < order_.size(), failure, "cannot write {}: all tensors are written", path_.string());
  const TensorInfo& t = order_[next_++];
  QLORA_CHECK(bytes.size() == byte_count(t), failure,
              "cannot write {}: tensor `{}` of type {} and shape [{}] has {} bytes", path_.string(), t.name,
              name_of(t.type), fmt::join(t.shape, ", "), bytes.size());
  file_.write(bytes);
}

void SafetensorsWriter::commit() {
  QLORA_CHECK(next_ == order_.size(), failure, "cannot write {}: {} of {} tensors are written",
              path_.string(), next_, order_.size());
  file_.commit();
}

void write_safetensors(const Path& path, std::span<const TensorOut> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> infos;
  std::map<std::string, std::span<const std::byte>> bytes;
  for (const TensorOut& t : tensors) {
    infos.push_back({t.name, t.type, t.shape});
    bytes[t.name] = t.bytes;
  }
  SafetensorsWriter writer(path, std::move(infos), metadata);
  for (const TensorInfo& t : writer.order()) writer.write(bytes[t.name]);
  writer.commit();
}

}  // namespace qlora
