#pragma once
// Data files to records. Which reader is used follows from the name's extension (before .gz):
//   .jsonl      one JSON object a line; blank lines are skipped
//   .json       a list of objects, or, when it does not begin with `[`, like .jsonl (such files exist)
//   .csv, .tsv  RFC 4180 with `,` or a tab; the first row names the fields; quoted fields may span lines
//   .parquet    as Hugging Face stores data sets (parquet/parquet.h); a line in messages is a row, from 1
// A row with more or fewer fields than the first, a value that is not an object, text that is not UTF-8, a
// quote that is never closed: each is an Error(data) that names the file and the line.

#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"
#include "datasets/record.h"

namespace qlora {

// The extensions that a data file may have, without .gz.
std::vector<std::string> data_extensions();

// `content` is the unpacked content of the file `path`, which chooses the reader and appears in messages.
// A file without a single record is an Error(data).
std::vector<Record> parse_records(const Path& path, std::string_view content);

// The readers themselves.
std::vector<Record> parse_json_records(const Path&, std::string_view content);
std::vector<Record> parse_json_lines(const Path&, std::string_view content);
std::vector<Record> parse_parquet_records(const Path&, std::string_view content);
std::vector<Record> parse_separated(const Path&, std::string_view content, char separator);

}  // namespace qlora
