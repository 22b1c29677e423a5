#include "core/io/gguf.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

#include "core/base/check.h"

namespace qlora {
namespace {

// Numbers of the types of metadata values.
enum class Kind : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

constexpr int kMaxDepth = 4;  // of arrays in arrays

// Bytes of a value in the file: at least so many.
uint64_t least_bytes(Kind kind) {
  switch (kind) {
    case Kind::u16:
    case Kind::i16:
      return 2;
    case Kind::u32:
    case Kind::i32:
    case Kind::f32:
      return 4;
    case Kind::u64:
    case Kind::i64:
    case Kind::f64:
    case Kind::text:  // its length
      return 8;
    case Kind::array:  // type and number of its elements
      return 12;
    default:
      return 1;
  }
}

// Reads from the front of a file; what it says it is reading goes into messages.
class Cursor {
 public:
  explicit Cursor(const MappedFile& file) : path_(file.path().string()), bytes_(file.bytes()) {}

  size_t position() const { return at_; }
  const std::string& path() const { return path_; }

  std::span<const std::byte> take(uint64_t n, const std::string& what) {
    QLORA_CHECK(n <= bytes_.size() - at_, data,
                "{}: {} needs {} bytes at {}, but the file ends at {}: truncated?", path_, what, n, at_,
                bytes_.size());
    auto out = bytes_.subspan(at_, static_cast<size_t>(n));
    at_ += static_cast<size_t>(n);
    return out;
  }
  template <class T>
  T read(const std::string& what) {
    T x;
    std::memcpy(&x, take(sizeof x, what).data(), sizeof x);
    return x;
  }
  std::string text(const std::string& what) {
    auto b = take(read<uint64_t>("the length of " + what), what);
    return {reinterpret_cast<const char*>(b.data()), b.size()};
  }
  GgufValue value(Kind kind, const std::string& key, int depth = 0);

 private:
  template <class T>
  GgufValue whole(const std::string& key) {
    T x = read<T>(key);
    QLORA_CHECK(std::in_range<int64_t>(x), data, "{}: {}: {} is too large", path_, key, x);
    return {static_cast<int64_t>(x)};
  }

  std::string path_;
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

GgufValue Cursor::value(Kind kind, const std::string& key, int depth) {
  switch (kind) {
    case Kind::u8:
      return whole<uint8_t>(key);
    case Kind::i8:
      return whole<int8_t>(key);
    case Kind::u16:
      return whole<uint16_t>(key);
    case Kind::i16:
      return whole<int16_t>(key);
    case Kind::u32:
      return whole<uint32_t>(key);
    case Kind::i32:
      return whole<int32_t>(key);
    case Kind::u64:
      return whole<uint64_t>(key);
    case Kind::i64:
      return whole<int64_t>(key);
    case Kind::f32:
      return {read<float>(key)};
    case Kind::f64:
      return {read<double>(key)};
    case Kind::boolean:
      return {read<uint8_t>(key) != 0};
    case Kind::text:
      return {text(key)};
    case Kind::array:
      break;
  }
  QLORA_CHECK(kind == Kind::array, data, "{}: {} has the unknown value type {}", path_, key,
              static_cast<uint32_t>(kind));
  QLORA_CHECK(depth < kMaxDepth, data, "{}: {}: arrays nested more than {} deep", path_, key, kMaxDepth);
  const auto element = read<Kind>(key);
  const auto n = read<uint64_t>(key);
  QLORA_CHECK(n <= (bytes_.size() - at_) / least_bytes(element), data,
              "{}: {} is said to have {} elements, more than the file holds", path_, key, n);
  GgufArray array;
  array.reserve(static_cast<size_t>(std::min<uint64_t>(n, 4096)));  // a damaged count must not ask for memory
  for (uint64_t i = 0; i < n; ++i) array.push_back(value(element, key, depth + 1));
  return {std::move(array)};
}

// A tensor's entry, and where its data begins behind the start of all data.
struct Entry {
  std::string name;
  GgufTensor tensor;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

std::string supported_types() {
  std::string out;
  for (const GgufTypeInfo& t : gguf_types()) out += (out.empty() ? "" : ", ") + std::string(t.name);
  return out;
}

Entry read_entry(Cursor& in) {
  Entry e;
  e.name = in.text("a tensor's name");
  const std::string what = fmt::format("tensor `{}`", e.name);
  const auto dimensions = in.read<uint32_t>(what);
  QLORA_CHECK(dimensions >= 1 && dimensions <= 4, data, "{}: {} has {} dimensions, expected 1 to 4",
              in.path(), what, dimensions);
  int64_t elements = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.read<uint64_t>(what);
    QLORA_CHECK(size > 0 && std::in_range<int64_t>(size) &&
                    !__builtin_mul_overflow(elements, static_cast<int64_t>(size), &elements),
                data, "{}: {} has an impossible size {}", in.path(), what, size);
    e.tensor.shape.insert(e.tensor.shape.begin(), static_cast<int64_t>(size));
  }
  const auto type = in.read<uint32_t>(what);
  e.offset = in.read<uint64_t>(what);
  e.tensor.type = find_gguf_type(type);
  QLORA_CHECK(e.tensor.type != nullptr, data,
              "{}: {} is of type number {}, which is not supported (supported: {}); use a file quantized "
              "otherwise, or "
              "the original model",
              in.path(), what, type, supported_types());
  const GgufTypeInfo& info = *e.tensor.type;
  QLORA_CHECK(e.tensor.shape.back() % info.elements == 0, data,
              "{}: {} of type {} has rows of {}, not a multiple of {}", in.path(), what, info.name,
              e.tensor.shape.back(), info.elements);
  QLORA_CHECK(elements / info.elements <= std::numeric_limits<int64_t>::max() / info.bytes, data,
              "{}: {} is impossibly large", in.path(), what);
  e.bytes = static_cast<uint64_t>(elements / info.elements * info.bytes);
  return e;
}

// Data must lie aligned within the file, without overlaps. Padding between tensors is part of the format.
void place(std::vector<Entry>& entries, std::span<const std::byte> data, uint64_t alignment,
           const std::string& path) {
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.offset < b.offset; });
  uint64_t end = 0;
  for (Entry& e : entries) {
    QLORA_CHECK(e.offset % alignment == 0, data, "{}: tensor `{}` starts at {}, not a multiple of {}", path,
                e.name, e.offset, alignment);
    QLORA_CHECK(e.offset <= data.size() && e.bytes <= data.size() - e.offset, data,
                "{}: tensor `{}` needs {} bytes at {} of the data, but there are {}: truncated file?", path,
                e.name, e.bytes, e.offset, data.size());
    QLORA_CHECK(e.offset >= end, data, "{}: tensor `{}` overlaps another one", path, e.name);
    end = e.offset + e.bytes;
    e.tensor.bytes = data.subspan(static_cast<size_t>(e.offset), static_cast<size_t>(e.bytes));
  }
}

}  // namespace

int64_t GgufTensor::size() const {
  int64_t n = 1;
  for (int64_t s : shape) n *= s;
  return n;
}

GgufFile::GgufFile(const Path& path) : file_(path) {
  Cursor in(file_);
  const auto magic = in.read<std::array<char, 4>>("the magic");
  QLORA_CHECK(std::string_view(magic.data(), 4) == "GGUF", data, "{}: not a GGUF file", path.string());
  const auto version = in.read<uint32_t>("the version");
  QLORA_CHECK((version & 0xffff) != 0, data, "{}: a big-endian GGUF file, which is not supported",
              path.string());
  QLORA_CHECK(version == 2 || version == 3, data, "{}: GGUF version {}, expected 2 or 3", path.string(),
              version);
  const auto tensors = in.read<uint64_t>("the number of tensors");
  const auto pairs = in.read<uint64_t>("the number of metadata pairs");
  for (uint64_t i = 0; i < pairs; ++i) {
    const std::string key = in.text("a metadata key");
    const auto kind = in.read<Kind>(key);
    QLORA_CHECK(metadata_.emplace(key, in.value(kind, key)).second, data,
                "{}: the metadata key {} is there twice", path.string(), key);
  }
  std::vector<Entry> entries;
  for (uint64_t i = 0; i < tensors; ++i) entries.push_back(read_entry(in));

  const int64_t alignment = integer("general.alignment").value_or(32);
  QLORA_CHECK(alignment > 0 && alignment <= (1 << 20), data, "{}: general.alignment is {}", path.string(),
              alignment);
  const auto step = static_cast<size_t>(alignment);
  const size_t start = std::min((in.position() + step - 1) / step * step, file_.bytes().size());
  place(entries, file_.bytes().subspan(start), step, path.string());
  for (Entry& e : entries)
    QLORA_CHECK(tensors_.emplace(e.name, std::move(e.tensor)).second, data, "{}: tensor `{}` is there twice",
                path.string(), e.name);
}

template <class T>
const T* GgufFile::get(std::string_view key, const char* type) const {
  auto at = metadata_.find(key);
  if (at == metadata_.end()) return nullptr;
  const T* value = std::get_if<T>(&at->second.value);
  QLORA_CHECK(value != nullptr, data, "{}: the metadata {} is not {}", path().string(), key, type);
  return value;
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const auto* v = get<int64_t>(key, "an integer");
  return v == nullptr ? std::nullopt : std::optional(*v);
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const auto at = metadata_.find(key);
  if (at == metadata_.end()) return std::nullopt;
  if (const auto* wide = std::get_if<double>(&at->second.value)) return *wide;
  const std::string decimal = fmt::format("{}", *get<float>(key, "a floating-point number"));
  double value = 0;
  std::from_chars(decimal.data(), decimal.data() + decimal.size(), value);
  return value;
}

std::optional<std::string> GgufFile::text(std::string_view key) const {
  const auto* v = get<std::string>(key, "a text");
  return v == nullptr ? std::nullopt : std::optional(*v);
}

std::optional<bool> GgufFile::flag(std::string_view key) const {
  const auto* v = get<bool>(key, "true or false");
  return v == nullptr ? std::nullopt : std::optional(*v);
}

std::optional<std::vector<std::string>> GgufFile::texts(std::string_view key) const {
  const auto* v = get<GgufArray>(key, "a list of texts");
  if (v == nullptr) return std::nullopt;
  std::vector<std::string> out;
  for (const GgufValue& element : *v) {
    const auto* s = std::get_if<std::string>(&element.value);
    QLORA_CHECK(s != nullptr, data, "{}: the metadata {} is not a list of texts", path().string(), key);
    out.push_back(*s);
  }
  return out;
}

std::optional<std::vector<int64_t>> GgufFile::integers(std::string_view key) const {
  const auto* v = get<GgufArray>(key, "a list of integers");
  if (v == nullptr) return std::nullopt;
  std::vector<int64_t> out;
  for (const GgufValue& element : *v) {
    const auto* n = std::get_if<int64_t>(&element.value);
    QLORA_CHECK(n != nullptr, data, "{}: the metadata {} is not a list of integers", path().string(), key);
    out.push_back(*n);
  }
  return out;
}

}  // namespace qlora
