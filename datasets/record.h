#pragma once
// One row of a data file, whatever the file's format: named fields, and the place it came from.

#include <map>
#include <string>
#include <string_view>

#include "core/base/check.h"

namespace qlora {

// What a field held. Only text is of use to prompt formats; the rest is kept to say what was found instead.
struct FieldValue {
  enum class Kind { text, null, number, boolean, list, object };
  Kind kind = Kind::text;
  std::string text;  // of Kind::text
};

class Record {
 public:
  std::map<std::string, FieldValue, std::less<>> fields;
  Where where;  // the file and the record's first line

  bool has(std::string_view name) const { return fields.find(name) != fields.end(); }
  // The field's text. Throws Error(data) with file:line and the field when it is missing or is not text.
  const std::string& text(std::string_view name) const;
  // The same, but a field that is missing or null is empty.
  std::string optional_text(std::string_view name) const;
  // "`a`, `b`": for messages.
  std::string names() const;
};

}  // namespace qlora
