#pragma once
// Thrift's compact protocol, as far as Parquet's footers and page headers need it: values become a small
// tree. Format: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace qlora {

struct ThriftValue {
  enum class Kind { boolean, integer, real, binary, list, record };
  Kind kind = Kind::integer;
  int64_t integer = 0;  // of boolean too
  double real = 0;
  std::string_view binary;            // into the bytes that were read
  std::vector<ThriftValue> list;      // also of sets
  std::map<int, ThriftValue> record;  // by field id

  const ThriftValue* field(int id) const {
    const auto found = record.find(id);
    return found == record.end() ? nullptr : &found->second;
  }
};

// Reads one struct that begins at `at`, which moves behind it. `origin` names the bytes in messages. Throws
// Error(data) where they end early, nest too deep or are no compact protocol.
ThriftValue read_thrift_struct(std::string_view bytes, size_t& at, const std::string& origin);

}  // namespace qlora
