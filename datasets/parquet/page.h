#pragma once
// The pages of a Parquet column chunk: unpacked, and decoded to levels and values.
// Format: https://github.com/apache/parquet-format

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/json.h"
#include "datasets/parquet/thrift.h"

namespace qlora {

// A leaf of the schema: what its bytes are.
struct ParquetLeaf {
  std::vector<std::string> path;  // names of the schema's nodes, without the root
  std::vector<int> repetition;    // of each node: 0 required, 1 optional, 2 repeated
  int type = 0;                   // physical type: 0 boolean, 1 int32, 2 int64, 4 float, 5 double, 6 bytes
  int max_definition = 0, max_repetition = 0;
  std::string name() const;  // joined by dots
};

// The entries of one column chunk in file order. An entry whose definition is below the leaf's has no value.
struct ParquetColumn {
  std::vector<uint8_t> definitions, repetitions;
  std::vector<Json> values;  // only of entries that have one; text as its bytes are, perhaps no UTF-8
};

// `bytes` is the whole file; `chunk` is the ColumnMetaData of its footer. Throws Error(data) naming origin
// and column for what this reader does not know (encryption, rare encodings and codecs) and for damaged
// pages.
ParquetColumn read_parquet_column(std::string_view bytes, const ThriftValue& chunk, const ParquetLeaf& leaf,
                                  const std::string& origin);

// Codecs of Parquet: 0 none, 1 snappy, 2 gzip, 6 zstd.
std::string unpack_parquet(std::string_view packed, size_t size, int64_t codec, const std::string& origin);

}  // namespace qlora
