// .json, .jsonl and .parquet.

#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "datasets/parquet/parquet.h"
#include "datasets/reader.h"

namespace qlora {
namespace {

FieldValue::Kind kind_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::string:
      return FieldValue::Kind::text;
    case Json::value_t::null:
      return FieldValue::Kind::null;
    case Json::value_t::boolean:
      return FieldValue::Kind::boolean;
    case Json::value_t::array:
      return FieldValue::Kind::list;
    case Json::value_t::object:
      return FieldValue::Kind::object;
    default:
      return FieldValue::Kind::number;
  }
}

Record to_record(Json& value, Where where) {
  QLORA_CHECK(value.is_object(), data, "{}: expected an object, found {}", where.text(), value.type_name());
  Record record;
  record.where = std::move(where);
  for (auto& [name, field] : value.items()) {
    FieldValue& out = record.fields[name];
    out.kind = kind_of(field);
    if (field.is_string()) out.text = std::move(field.get_ref<std::string&>());
  }
  return record;
}

// The line on which each element of a list begins. REQUIRES: `text` is valid JSON, a list.
std::vector<int> element_lines(std::string_view text) {
  std::vector<int> lines;
  int line = 1, depth = 0;
  bool in_string = false, expects_element = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\n') ++line;
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
    if (depth == 1 && expects_element && c != ']') {
      lines.push_back(line);
      expects_element = false;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') expects_element = ++depth == 1;
    if (c == ']' || c == '}') --depth;
    if (c == ',' && depth == 1) expects_element = true;
  }
  return lines;
}

}  // namespace

std::vector<Record> parse_json_records(const Path& path, std::string_view content) {
  size_t first = content.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || content[first] != '[') return parse_json_lines(path, content);
  Json list = parse_json(content, path.string());
  std::vector<int> lines = element_lines(content);
  std::vector<Record> records;
  records.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i)
    records.push_back(to_record(list[i], {.file = path.string(), .line = lines[i]}));
  return records;
}

std::vector<Record> parse_parquet_records(const Path& path, std::string_view content) {
  std::vector<Json> rows = parse_parquet(content, path.string());
  std::vector<Record> records;
  records.reserve(rows.size());
  for (size_t i = 0; i < rows.size(); ++i)
    records.push_back(to_record(rows[i], {.file = path.string(), .line = static_cast<int>(i + 1)}));
  return records;
}

std::vector<Record> parse_json_lines(const Path& path, std::string_view content) {
  std::vector<Record> records;
  int line = 0;
  while (!content.empty()) {
    size_t end = content.find('\n');
    std::string_view text = content.substr(0, end);
    content.remove_prefix(end == std::string_view::npos ? content.size() : end + 1);
    ++line;
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Json value = Json::parse(text.begin(), text.end(), nullptr, false);
    // Parsed again below as many empty lines, so that the message has the right line and column.
    if (value.is_discarded())
      value = parse_json(std::string(static_cast<size_t>(line - 1), '\n') + std::string(text), path.string());
    records.push_back(to_record(value, {.file = path.string(), .line = line}));
  }
  return records;
}

}  // namespace qlora
