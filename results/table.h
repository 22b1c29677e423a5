#pragma once
// Rows as people and scripts read them: an aligned text table, or JSON.

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/base/json.h"

namespace qlora {

using Bytes = std::vector<uint8_t>;

// One value of a result: NULL, INTEGER, REAL, TEXT or BLOB.
using Value = std::variant<std::monostate, int64_t, double, std::string, Bytes>;

// Column names and rows of the same width.
struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<Value>> rows;

  bool empty() const { return rows.empty(); }
  // The index of a column. Throws Error(usage) with the nearest name.
  size_t column(std::string_view name) const;
  const Value& at(size_t row, std::string_view name) const { return rows[row][column(name)]; }
};

struct TextStyle {
  int digits = 4;         // significant digits of REAL values, at least the whole part
  int decimals = -1;      // places behind their point instead, the same in all rows; -1: `digits` decides
  size_t max_width = 60;  // of a column, in characters; longer text ends in "..."; 0 = no limit
  bool header = true;
  std::string null = "";  // how NULL is shown
};

// Columns padded with spaces, two between them; numbers to the right, text to the left; a rule below the
// header. Every line ends in a newline. Widths are counted in code points.
std::string render_text(const Table&, const TextStyle& = {});

// An array of objects, keys in column order, one row a line. REAL values have their shortest round-trip form,
// BLOB values are lower-case hexadecimal text, NULL is null.
std::string render_json(const Table&);

// The same as a value (its objects sort their keys).
Json to_json(const Table&);

}  // namespace qlora
