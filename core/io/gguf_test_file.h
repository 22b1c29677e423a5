#pragma once
// For tests only: builds small GGUF files byte by byte.

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/base/file.h"

namespace qlora::test {

// Metadata and tensors in the order in which they are added; build() gives the whole file (version 3).
class GgufBuilder {
 public:
  GgufBuilder& integer(const std::string& key, uint32_t v) { return pair(key, 4, raw(v)); }
  GgufBuilder& number(const std::string& key, float v) { return pair(key, 6, raw(v)); }
  GgufBuilder& flag(const std::string& key, bool v) { return pair(key, 7, raw(static_cast<uint8_t>(v))); }
  GgufBuilder& text(const std::string& key, const std::string& v) { return pair(key, 8, string(v)); }
  GgufBuilder& texts(const std::string& key, const std::vector<std::string>& v) {
    std::string body = raw<uint32_t>(8) + raw<uint64_t>(v.size());
    for (const std::string& s : v) body += string(s);
    return pair(key, 9, body);
  }
  GgufBuilder& integers(const std::string& key, const std::vector<int32_t>& v) {
    std::string body = raw<uint32_t>(5) + raw<uint64_t>(v.size());
    for (int32_t i : v) body += raw(i);
    return pair(key, 9, body);
  }
  // A value given as bytes.
  GgufBuilder& pair(const std::string& key, uint32_t type, const std::string& body) {
    metadata_ += string(key) + raw(type) + body;
    ++pairs_;
    return *this;
  }
  // shape: row-major, as our reader gives it. The data goes behind that of the tensors before, aligned to 32.
  GgufBuilder& tensor(const std::string& name, const std::vector<uint64_t>& shape, uint32_t type,
                      const std::string& bytes) {
    data_.resize((data_.size() + 31) / 32 * 32, '\0');
    entry(name, shape, type, data_.size());
    data_ += bytes;
    return *this;
  }
  GgufBuilder& floats(const std::string& name, const std::vector<uint64_t>& shape,
                      const std::vector<float>& v) {
    return tensor(name, shape, 0, {reinterpret_cast<const char*>(v.data()), v.size() * sizeof(float)});
  }
  // Only the entry, with any offset.
  GgufBuilder& entry(const std::string& name, const std::vector<uint64_t>& shape, uint32_t type,
                     uint64_t offset) {
    tensors_ += string(name) + raw(static_cast<uint32_t>(shape.size()));
    for (auto size = shape.rbegin(); size != shape.rend(); ++size) tensors_ += raw(*size);
    tensors_ += raw(type) + raw(offset);
    ++count_;
    return *this;
  }
  std::string build(uint32_t version = 3) const {
    std::string out = "GGUF" + raw(version) + raw(count_) + raw(pairs_) + metadata_ + tensors_;
    out.resize((out.size() + 31) / 32 * 32, '\0');
    return out + data_;
  }

  template <class T>
  static std::string raw(T v) {
    return {reinterpret_cast<const char*>(&v), sizeof v};
  }
  static std::string string(const std::string& s) { return raw<uint64_t>(s.size()) + s; }

 private:
  std::string metadata_, tensors_, data_;
  uint64_t pairs_ = 0, count_ = 0;
};

}  // namespace qlora::test
