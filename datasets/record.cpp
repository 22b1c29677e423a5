#include "datasets/record.h"

namespace qlora {
namespace {

const char* describe(FieldValue::Kind kind) {
  switch (kind) {
    case FieldValue::Kind::null:
      return "null";
    case FieldValue::Kind::number:
      return "a number";
    case FieldValue::Kind::boolean:
      return "true or false";
    case FieldValue::Kind::list:
      return "a list";
    case FieldValue::Kind::object:
      return "an object";
    default:
      return "text";
  }
}

}  // namespace

const std::string& Record::text(std::string_view name) const {
  auto it = fields.find(name);
  if (it == fields.end()) fail(ErrorKind::data, "{}: no field `{}` (found: {})", where.text(), name, names());
  QLORA_CHECK(it->second.kind == FieldValue::Kind::text, data, "{}: field `{}`: expected text, found {}",
              where.text(), name, describe(it->second.kind));
  return it->second.text;
}

std::string Record::optional_text(std::string_view name) const {
  auto it = fields.find(name);
  if (it == fields.end() || it->second.kind == FieldValue::Kind::null) return {};
  return text(name);
}

std::string Record::names() const {
  std::string out;
  for (const auto& [name, value] : fields) out += fmt::format("{}`{}`", out.empty() ? "" : ", ", name);
  return out.empty() ? "no fields" : out;
}

}  // namespace qlora
