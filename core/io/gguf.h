#pragma once
// GGUF, the single-file model format of llama.cpp, versions 2 and 3 (little-endian): magic "GGUF", version,
// counts; metadata as typed key-value pairs; tensor names, dimensions (fastest first), types and offsets;
// aligned data. Reading maps the file; every length, offset and size is checked against the file.

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/base/file.h"
#include "core/io/gguf_blocks.h"

namespace qlora {

struct GgufValue;
using GgufArray = std::vector<GgufValue>;

// Integers of all widths are int64_t (uint64 above its range is refused), f32 is float, f64 is double.
struct GgufValue {
  std::variant<bool, int64_t, float, double, std::string, GgufArray> value;
};

struct GgufTensor {
  const GgufTypeInfo* type = nullptr;
  std::vector<int64_t> shape;        // row-major: the fastest last
  std::span<const std::byte> bytes;  // valid as long as the file object
  int64_t size() const;
};

class GgufFile {
 public:
  // Throws Error(data) naming path, key or tensor, expected and found.
  explicit GgufFile(const Path&);
  const Path& path() const { return file_.path(); }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }

  // Metadata. Empty when the key is not there; Error(data) when it is of another type.
  std::optional<int64_t> integer(std::string_view key) const;
  // Of f32 or f64; an f32 is widened by its shortest decimal: 1e-05.
  std::optional<double> number(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::vector<std::string>> texts(std::string_view key) const;
  std::optional<std::vector<int64_t>> integers(std::string_view key) const;

 private:
  template <class T>
  const T* get(std::string_view key, const char* type) const;

  MappedFile file_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace qlora
