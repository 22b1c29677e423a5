#pragma once
// Parquet files as rows of JSON, for data sets as Hugging Face stores them. Debian 12 has no library for
// Parquet, hence this reader: columns of text, whole numbers, reals and booleans, in structs and in lists (a
// list inside a list is refused); encodings plain and dictionary, pages of both versions; unpacked, snappy,
// gzip, zstd.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"
#include "core/base/json.h"

namespace qlora {

// One object per row, in file order; a null is a JSON null. Throws Error(data) naming the file, and the
// column with its type, for what is damaged or not known.
std::vector<Json> read_parquet(const Path& file);
std::vector<Json> parse_parquet(std::string_view bytes, const std::string& origin);

}  // namespace qlora
