#pragma once
// Rows of a text: one JSON object a line (JSON lines), the elements of one JSON array, or records of CSV. For
// the readers of this folder.

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/json.h"

namespace qlora {

// One row and where it stands, for reading its fields with errors that name file, line and field.
class Row {
 public:
  Row(const Json& json, const std::string& path, int line, int on_line = 0)
      : json_(json), path_(path), line_(line), on_line_(on_line) {}
  const Json& json() const { return json_; }
  int line() const { return line_; }
  int on_line() const {
    return on_line_;
  }                           // how many rows start before it on its line (arrays alone have such)
  std::string where() const;  // "path:line"
  bool has(const char* key) const;

  // The value of a field. Throws Error(data) when it is missing or of another type.
  std::string text(const char* key) const;
  double number(const char* key) const;
  int64_t integer(const char* key) const;
  // "" (or the other value) when it is missing or null; still an error when it has another type.
  std::string text_or_empty(const char* key) const;
  int64_t integer_or(const char* key, int64_t otherwise) const;
  // A field that may be text or a whole number, as text.
  std::string id(const char* key) const;

 private:
  const Json& field(const char* key) const;
  const Json& json_;
  const std::string& path_;
  int line_, on_line_;
};

// Calls `use` for every row of a file's content, in order; blank lines are skipped. `path` is for messages.
// Throws Error(data) with path and line: bad JSON, a last line that is cut off, an array that is not closed,
// NaN or infinity (which are no JSON), a row that is no object.
void for_each_row(std::string_view content, const std::string& path,
                  const std::function<void(const Row&)>& use);

// The same of a CSV file's records: an object of texts by the names in the header. Throws Error(data) for a
// record that has more or fewer fields than the header, a column that stands twice, a quote that never ends.
void for_each_csv_row(std::string_view content, const std::string& path,
                      const std::function<void(const Row&)>& use);

// The id of an item that has none of its own: a short hash of its words.
std::string item_of_words(std::string_view words);

}  // namespace qlora
