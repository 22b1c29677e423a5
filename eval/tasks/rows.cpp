#include "eval/tasks/rows.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/text/unicode.h"
#include "core/text/utf8.h"
#include "datasets/csv.h"
#include "datasets/parquet/parquet.h"

namespace qlora {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

DataRow make_row(Json value, const std::string& file, int line) {
  Where where{.file = file, .line = line};
  QLORA_CHECK(value.is_object(), data, "{}: expected an object, found {}", where.text(), value.type_name());
  return {std::make_shared<const Json>(std::move(value)), std::move(where)};
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    if (lines.back().ends_with('\r')) lines.back().remove_suffix(1);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return lines;
}

std::vector<DataRow> json_lines(const std::string& file, std::string_view text) {
  std::vector<DataRow> rows;
  int number = 0;
  for (std::string_view line : split_lines(text)) {
    ++number;
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    Json value = Json::parse(line.begin(), line.end(), nullptr, false);
    // Parsed again below as many empty lines, so that the message has the right line and column.
    if (value.is_discarded())
      value = parse_json(std::string(static_cast<size_t>(number - 1), '\n') + std::string(line), file);
    rows.push_back(make_row(std::move(value), file, number));
  }
  return rows;
}

// Rows of a file that has no lines.
std::vector<DataRow> counted_rows(const std::string& file, std::vector<Json> values) {
  std::vector<DataRow> rows;
  for (size_t i = 0; i < values.size(); ++i)
    rows.push_back(make_row(std::move(values[i]), fmt::format("{} row {}", file, i + 1), 0));
  return rows;
}

std::vector<DataRow> json_list(const std::string& file, std::string_view text, std::string_view member) {
  Json all = parse_json(text, file);
  if (all.is_object()) {
    QLORA_CHECK(!member.empty() && all.contains(member) && all[member].is_array(), data,
                "{}: expected a list of rows{}", file,
                member.empty() ? "" : fmt::format(", or an object with the list `{}`", member));
    all = Json(all[member]);
  }
  QLORA_CHECK(all.is_array(), data, "{}: expected a list of rows, found {}", file, all.type_name());
  return counted_rows(file, std::move(all.get_ref<Json::array_t&>()));
}

// One row of named fields; as many as there are names.
DataRow named_row(const std::vector<std::string>& names, const std::vector<std::string>& fields,
                  const std::string& file, int line) {
  QLORA_CHECK(fields.size() == names.size(), data, "{}:{}: expected {} fields as in the first row, found {}",
              file, line, names.size(), fields.size());
  Json value = Json::object();
  for (size_t i = 0; i < fields.size(); ++i) value[names[i]] = fields[i];
  return make_row(std::move(value), file, line);
}

std::vector<DataRow> comma_separated(const std::string& file, std::string_view text) {
  CsvReader csv(text, file);
  std::vector<DataRow> rows;
  const auto names = csv.next();
  if (!names) return rows;
  while (auto fields = csv.next()) rows.push_back(named_row(*names, *fields, file, csv.line()));
  return rows;
}

// GLUE's files: no quotes, a quotation mark is a character like others.
std::vector<DataRow> tab_separated(const std::string& file, std::string_view text) {
  std::vector<DataRow> rows;
  std::vector<std::string> names;
  int number = 0;
  for (std::string_view line : split_lines(text)) {
    ++number;
    if (line.empty()) continue;
    if (names.empty()) {
      names = split(line, '\t');
    } else {
      rows.push_back(named_row(names, split(line, '\t'), file, number));
    }
  }
  return rows;
}

std::vector<DataRow> text_lines(const std::string& file, std::string_view text) {
  std::vector<DataRow> rows;
  int number = 0;
  for (std::string_view line : split_lines(text)) {
    ++number;
    if (!line.empty()) rows.push_back(make_row({{"line", line}}, file, number));
  }
  return rows;
}

std::optional<int64_t> as_integer(const Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_string()) return std::nullopt;
  const auto& text = value.get_ref<const std::string&>();
  int64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

bool DataRow::has(std::string_view field) const {
  return value_->contains(field) && !(*value_)[std::string(field)].is_null();
}

const Json& DataRow::at(std::string_view field) const {
  auto found = value_->find(field);
  QLORA_CHECK(found != value_->end(), data, "{}: no field `{}`", where_.text(), field);
  return *found;
}

void DataRow::wrong(std::string_view field, std::string_view expected) const {
  fail(ErrorKind::data, "{}: `{}` must be {}, found {}", where_.text(), field, expected,
       at(field).dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60));
}

std::string DataRow::text(std::string_view field) const {
  const Json& value = at(field);
  if (!value.is_string()) wrong(field, "a text");
  return value.get<std::string>();
}

int64_t DataRow::integer(std::string_view field) const {
  if (auto number = as_integer(at(field))) return *number;
  wrong(field, "a whole number");
}

double DataRow::number(std::string_view field) const {
  const Json& value = at(field);
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    double number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
  }
  wrong(field, "a number");
}

int64_t DataRow::label(std::string_view field, std::span<const std::string> words) const {
  const Json& value = at(field);
  std::string names;
  for (size_t i = 0; i < words.size(); ++i) {
    if (value.is_string() && value.get_ref<const std::string&>() == words[i]) return static_cast<int64_t>(i);
    names += fmt::format("{}{} ({})", i == 0 ? "" : ", ", i, words[i]);
  }
  if (auto number = as_integer(value); number && *number >= 0 && *number < static_cast<int64_t>(words.size()))
    return *number;
  wrong(field, "one of " + names);
}

std::vector<std::string> DataRow::texts(std::string_view field) const {
  const Json& value = at(field);
  if (value.is_string()) return {value.get<std::string>()};
  if (!value.is_array()) wrong(field, "a list of texts");
  std::vector<std::string> texts;
  for (const Json& one : value) {
    if (!one.is_string()) wrong(field, "a list of texts");
    texts.push_back(one.get<std::string>());
  }
  return texts;
}

std::vector<int64_t> DataRow::integers(std::string_view field) const {
  const Json& value = at(field);
  if (!value.is_array()) wrong(field, "a list of whole numbers");
  std::vector<int64_t> numbers;
  for (const Json& one : value) {
    auto number = as_integer(one);
    if (!number) wrong(field, "a list of whole numbers");
    numbers.push_back(*number);
  }
  return numbers;
}

DataRow DataRow::object(std::string_view field) const {
  const Json& value = at(field);
  if (!value.is_object()) wrong(field, "an object");
  return {std::shared_ptr<const Json>(value_, &value), where_};
}

std::vector<DataRow> DataRow::objects(std::string_view field) const {
  const Json& value = at(field);
  if (!value.is_array()) wrong(field, "a list of objects");
  std::vector<DataRow> rows;
  for (const Json& one : value) {
    if (!one.is_object()) wrong(field, "a list of objects");
    rows.emplace_back(std::shared_ptr<const Json>(value_, &one), where_);
  }
  return rows;
}

std::string DataRow::json() const {
  return canonical(*value_);
}

std::string TaskSource::bytes_of(const Path& file) {
  std::string bytes = read_file(file);
  hashes_.push_back(file.filename().string() + " " + hex(sha256(bytes)) + "\n");
  return bytes;
}

std::string TaskSource::text_of(const Path& file) {
  const std::string text = bytes_of(file);
  const size_t bad = invalid_utf8(text);
  QLORA_CHECK(bad == text.size(), data, "{}:{}: the text is not UTF-8", file.string(),
              1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bad), '\n'));
  return text.starts_with(kByteOrderMark) ? text.substr(kByteOrderMark.size()) : text;
}

std::vector<DataRow> TaskSource::rows_of(const Path& file, std::string_view list) {
  const std::string name = file.string();
  const std::string extension = (file.extension() == ".gz" ? file.stem() : file).extension().string();
  const bool table = extension == ".parquet";
  const std::string text = table ? bytes_of(file) : text_of(file);
  const size_t first = text.find_first_not_of(" \t\r\n");
  std::vector<DataRow> rows;
  if (table) {
    rows = counted_rows(name, parse_parquet(text, name));
  } else if (extension == ".jsonl" ||
             (extension == ".json" && first != std::string::npos && text[first] == '{' && list.empty())) {
    rows = json_lines(name, text);  // a .json of one object a line is common
  } else if (extension == ".json") {
    rows = json_list(name, text, list);
  } else if (extension == ".csv") {
    rows = comma_separated(name, text);
  } else if (extension == ".tsv") {
    rows = tab_separated(name, text);
  } else {
    QLORA_CHECK(
        extension == ".txt", data,
        "{}: a task's data is .jsonl, .json, .csv, .tsv or .txt (each also .gz) or .parquet, not `{}`", name,
        extension);
    rows = text_lines(name, text);
  }
  QLORA_CHECK(!rows.empty(), data, "{}: no rows", name);
  return rows;
}

std::vector<DataRow> TaskSource::lines_of(const Path& file) {
  return text_lines(file.string(), text_of(file));
}

DataRow TaskSource::object_of(const Path& file) {
  return make_row(parse_json(text_of(file), file.string()), file.string(), 0);
}

std::optional<std::string> TaskSource::beside(const std::string& name) {
  const Path file = (std::filesystem::is_directory(path_) ? path_ : path_.parent_path()) / name;
  if (!std::filesystem::exists(file)) return std::nullopt;
  return text_of(file);
}

std::string TaskSource::content_hash() const {
  Sha256 all;
  for (const std::string& line : hashes_) all.update(line);
  return hex(all.finish());
}

int64_t code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
}

int64_t space_separated(std::string_view text) {
  int64_t pieces = 1;
  bool in_space = false;
  for (size_t at = 0; at < text.size();) {
    const bool space = is_white_space(next_code_point(text, at));
    if (space && !in_space) ++pieces;
    in_space = space;
  }
  return pieces;
}

std::string trim(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t from = at;
    if (is_white_space(next_code_point(text, at))) continue;
    begin = std::min(begin, from);
    end = at;
  }
  return begin < end ? std::string(text.substr(begin, end - begin)) : std::string();
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (size_t at = 0;;) {
    const size_t found = text.find(from, at);
    result += text.substr(at, found - at);
    if (found == std::string_view::npos) return result;
    result += to;
    at = found + from.size();
  }
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t at = 0;;) {
    const size_t end = text.find(separator, at);
    parts.emplace_back(text.substr(at, end - at));
    if (end == std::string_view::npos) return parts;
    at = end + 1;
  }
}

}  // namespace qlora
