#pragma once
// Rows of a task's data files, with fields of any JSON type, and the file or folder that a task reads.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/hash.h"
#include "core/base/json.h"

namespace qlora {

// One JSON object and where it was found. Every reader throws Error(data) with file, line, field, and what
// was found instead.
class DataRow {
 public:
  DataRow(std::shared_ptr<const Json> value, Where where)
      : value_(std::move(value)), where_(std::move(where)) {}

  bool has(std::string_view field) const;  // there, and not null
  std::string text(std::string_view field) const;
  // A number, or a text that is one ("3": some releases write labels so); true is 1.
  int64_t integer(std::string_view field) const;
  double number(std::string_view field) const;  // likewise, with fractions
  // integer(), or the place of one of `words`; in [0, words.size()).
  int64_t label(std::string_view field, std::span<const std::string> words) const;
  std::vector<std::string> texts(std::string_view field) const;  // a list of texts, or one text
  std::vector<int64_t> integers(std::string_view field) const;   // a list of numbers
  DataRow object(std::string_view field) const;                  // one inside
  std::vector<DataRow> objects(std::string_view field) const;    // a list of them
  const Where& where() const { return where_; }
  std::string json() const;  // canonical
  [[noreturn]] void wrong(std::string_view field, std::string_view expected) const;

 private:
  const Json& at(std::string_view field) const;
  std::shared_ptr<const Json> value_;
  Where where_;
};

// The data that a task was pointed to. Everything that is read enters the content hash, in the order of
// reading.
class TaskSource {
 public:
  explicit TaskSource(Path path) : path_(std::move(path)) {}
  const Path& path() const { return path_; }  // a file, or a folder for tasks of many files

  // By extension (before .gz): .jsonl; .json, a list or an object whose member `list` is one; .csv with
  // names in the first row; .tsv likewise, without quoting; .txt, one row {"line": TEXT} a line; .parquet,
  // as Hugging Face keeps data sets. Throws Error(data).
  std::vector<DataRow> rows(std::string_view list = {}) { return rows_of(path_, list); }
  std::vector<DataRow> rows_of(const Path& file, std::string_view list = {});
  std::string text_of(const Path& file);
  std::vector<DataRow> lines_of(const Path& file);  // one row {"line": TEXT} a line, whatever the extension
  DataRow object_of(const Path& file);              // a file that is one JSON object
  // A file of the same folder; nothing when it is not there.
  std::optional<std::string> beside(const std::string& name);

  std::string content_hash() const;  // SHA-256 over name and content of what was read

 private:
  std::string bytes_of(const Path& file);

  Path path_;
  std::vector<std::string> hashes_;  // "name digest", one a file
};

int64_t code_points(std::string_view text);
int64_t space_separated(std::string_view text);  // pieces between runs of white space, empty ones too
std::string trim(std::string_view text);         // white space of Unicode off both ends
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);
std::vector<std::string> split(std::string_view text, char separator);

}  // namespace qlora
