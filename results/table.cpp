#include "results/table.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/names.h"

namespace qlora {

namespace {

// Code points: bytes that do not continue one.
size_t width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string shorten(const std::string& text, size_t limit) {
  if (limit == 0 || width(text) <= limit) return text;
  size_t keep = limit > 3 ? limit - 3 : 0, bytes = 0, seen = 0;
  for (; bytes < text.size(); ++bytes) {
    bool starts = (text[bytes] & 0xC0) != 0x80;
    if (starts && seen++ == keep) break;
  }
  return text.substr(0, bytes) + std::string(std::min<size_t>(limit, 3), '.');
}

std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  return text;
}

std::string real_text(double value, int digits) {
  double size = std::fabs(value);
  if (size >= std::pow(10.0, digits - 1) && size < 1e15) return fmt::format("{:.0f}", value);
  return fmt::format("{:.{}g}", value, digits);
}

std::string cell_text(const Value& value, const TextStyle& style) {
  if (auto* i = std::get_if<int64_t>(&value)) return fmt::format("{}", *i);
  if (auto* r = std::get_if<double>(&value))
    return style.decimals < 0 ? real_text(*r, style.digits) : fmt::format("{:.{}f}", *r, style.decimals);
  if (auto* t = std::get_if<std::string>(&value)) return shorten(one_line(*t), style.max_width);
  if (auto* b = std::get_if<Bytes>(&value)) return shorten(hex(*b), style.max_width);
  return style.null;
}

bool is_number(const Value& value) {
  return std::holds_alternative<int64_t>(value) || std::holds_alternative<double>(value);
}

// A column of numbers (and NULLs) stands to the right.
bool is_numeric(const Table& table, size_t column) {
  bool any = false;
  for (const auto& row : table.rows) {
    if (std::holds_alternative<std::monostate>(row[column])) continue;
    if (!is_number(row[column])) return false;
    any = true;
  }
  return any;
}

Json json_of(const Value& value) {
  if (auto* i = std::get_if<int64_t>(&value)) return *i;
  if (auto* r = std::get_if<double>(&value)) return std::isfinite(*r) ? Json(*r) : Json(nullptr);
  if (auto* t = std::get_if<std::string>(&value)) return *t;
  if (auto* b = std::get_if<Bytes>(&value)) return hex(*b);
  return nullptr;
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// `SELECT a, a` has two columns of one name; an object cannot.
std::vector<std::string> unique_names(const std::vector<std::string>& columns) {
  std::vector<std::string> names;
  std::map<std::string, int> seen;
  for (const std::string& column : columns) {
    int count = ++seen[column];
    names.push_back(count == 1 ? column : fmt::format("{}_{}", column, count));
  }
  return names;
}

}  // namespace

size_t Table::column(std::string_view name) const {
  auto found = std::find(columns.begin(), columns.end(), name);
  QLORA_CHECK(found != columns.end(), usage, "{}", unknown_name("column", name, columns));
  return static_cast<size_t>(found - columns.begin());
}

std::string render_text(const Table& table, const TextStyle& style) {
  size_t n = table.columns.size();
  std::vector<std::vector<std::string>> lines;
  if (style.header) lines.push_back(table.columns);
  for (const auto& row : table.rows) {
    auto& line = lines.emplace_back();
    for (const Value& value : row) line.push_back(cell_text(value, style));
  }
  std::vector<size_t> widths(n, 0);
  std::vector<bool> right(n);
  for (size_t c = 0; c < n; ++c) {
    right[c] = is_numeric(table, c);
    for (const auto& line : lines) widths[c] = std::max(widths[c], width(line[c]));
  }
  std::string text;
  auto add = [&](const std::vector<std::string>& line) {
    std::string out;
    for (size_t c = 0; c < n; ++c) {
      std::string pad(widths[c] - width(line[c]), ' ');
      out += right[c] ? pad + line[c] : line[c] + pad;
      if (c + 1 < n) out += "  ";
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + "\n";
  };
  for (size_t i = 0; i < lines.size(); ++i) {
    add(lines[i]);
    if (i > 0 || !style.header) continue;
    std::vector<std::string> rule;
    for (size_t c = 0; c < n; ++c) rule.emplace_back(widths[c], '-');
    add(rule);
  }
  return text;
}

std::string render_json(const Table& table) {
  std::vector<std::string> names = unique_names(table.columns);
  std::string text = "[";
  for (size_t r = 0; r < table.rows.size(); ++r) {
    text += r == 0 ? "\n  {" : ",\n  {";
    for (size_t c = 0; c < names.size(); ++c)
      text += fmt::format("{}{}: {}", c == 0 ? "" : ", ", dump(names[c]), dump(json_of(table.rows[r][c])));
    text += "}";
  }
  return text + (table.rows.empty() ? "]\n" : "\n]\n");
}

Json to_json(const Table& table) {
  std::vector<std::string> names = unique_names(table.columns);
  Json rows = Json::array();
  for (const auto& row : table.rows) {
    Json object = Json::object();
    for (size_t c = 0; c < names.size(); ++c) object[names[c]] = json_of(row[c]);
    rows.push_back(std::move(object));
  }
  return rows;
}

}  // namespace qlora
