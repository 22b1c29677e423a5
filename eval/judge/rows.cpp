#include "eval/judge/rows.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/json_lines.h"
#include "datasets/csv.h"

namespace qlora {

namespace {

constexpr std::string_view kBlank = " \t\r\n";

// Python's writers put these where a number is missing.
bool names_no_number(std::string_view text) {
  for (std::string_view word : {"NaN", "Infinity"})
    for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
      size_t before = at == 0 ? std::string_view::npos : text.find_last_not_of(" \t-", at - 1);
      if (before != std::string_view::npos &&
          std::string_view(":[,").find(text[before]) != std::string_view::npos)
        return true;
    }
  return false;
}

// One row's JSON; `cut`: the file ends with it, without the end of a line.
Json parse_row(std::string_view text, const std::string& path, int line, bool cut) {
  const std::string where = fmt::format("{}:{}", path, line);
  try {
    return parse_json_line(text, where, cut);
  } catch (const Error&) {
    QLORA_CHECK(!names_no_number(text), data,
                "{}: a score must be a finite number; NaN and infinity are none", where);
    throw;
  }
}

void use_row(std::string_view text, const std::string& path, int line, int on_line, bool cut,
             const std::function<void(const Row&)>& use) {
  const Json json = parse_row(text, path, line, cut);
  QLORA_CHECK(json.is_object(), data, "{}:{}: expected a JSON object", path, line);
  use(Row(json, path, line, on_line));
}

void for_each_line(std::string_view content, const std::string& path,
                   const std::function<void(const Row&)>& use) {
  for (int line = 1; !content.empty(); ++line) {
    size_t end = std::min(content.find('\n'), content.size());
    std::string_view text = content.substr(0, end);
    bool last = end == content.size();
    content.remove_prefix(std::min(end + 1, content.size()));
    if (text.find_first_not_of(kBlank) == std::string_view::npos) continue;
    use_row(text, path, line, 0, last, use);
  }
}

// Walks over one array, so that every element keeps its line: strings and nesting are all that matters.
void for_each_element(std::string_view content, const std::string& path,
                      const std::function<void(const Row&)>& use) {
  int line = 1, depth = 0, start_line = 0, on_line = 0;
  size_t start = 0;
  bool quoted = false, closed = false;
  for (size_t i = 0; i < content.size(); ++i) {
    char c = content[i];
    if (c == '\n') ++line;
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
      continue;
    }
    QLORA_CHECK(!closed || kBlank.find(c) != std::string_view::npos, data, "{}:{}: text after the array",
                path, line);
    bool separator = depth == 1 && (c == ',' || c == ']');
    if (separator && start != 0) {
      use_row(content.substr(start, i - start), path, start_line, on_line, false, use);
      start = 0;
    } else if (depth == 1 && !separator && start == 0 && kBlank.find(c) == std::string_view::npos) {
      start = i;
      on_line = start_line == line ? on_line + 1 : 0;
      start_line = line;
    }
    if (c == '"') quoted = true;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') closed = --depth == 0;
  }
  QLORA_CHECK(closed, data, "{}:{}: the array is cut off; get the whole file", path,
              start != 0 ? start_line : line);
}

}  // namespace

std::string Row::where() const {
  return fmt::format("{}:{}", path_, line_);
}

bool Row::has(const char* key) const {
  auto found = json_.find(key);
  return found != json_.end() && !found->is_null();
}

const Json& Row::field(const char* key) const {
  auto found = json_.find(key);
  QLORA_CHECK(found != json_.end(), data, "{}: the row has no `{}`", where(), key);
  return *found;
}

std::string Row::text(const char* key) const {
  const Json& value = field(key);
  QLORA_CHECK(value.is_string(), data, "{}: `{}` must be text, not {}", where(), key, value.dump());
  return value.get<std::string>();
}

double Row::number(const char* key) const {
  const Json& value = field(key);
  QLORA_CHECK(value.is_number(), data, "{}: `{}` must be a number, not {}", where(), key, value.dump());
  return value.get<double>();
}

int64_t Row::integer(const char* key) const {
  const Json& value = field(key);
  QLORA_CHECK(value.is_number_integer(), data, "{}: `{}` must be a whole number, not {}", where(), key,
              value.dump());
  return value.get<int64_t>();
}

std::string Row::text_or_empty(const char* key) const {
  return has(key) ? text(key) : "";
}

int64_t Row::integer_or(const char* key, int64_t otherwise) const {
  return has(key) ? integer(key) : otherwise;
}

std::string Row::id(const char* key) const {
  const Json& value = field(key);
  if (value.is_string()) return value.get<std::string>();
  QLORA_CHECK(value.is_number_integer(), data, "{}: `{}` must be text or a whole number, not {}", where(),
              key, value.dump());
  return value.dump();
}

void for_each_row(std::string_view content, const std::string& path,
                  const std::function<void(const Row&)>& use) {
  size_t first = content.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return;
  if (content[first] == '[')
    for_each_element(content, path, use);
  else
    for_each_line(content, path, use);
}

void for_each_csv_row(std::string_view content, const std::string& path,
                      const std::function<void(const Row&)>& use) {
  if (content.starts_with("\xEF\xBB\xBF")) content.remove_prefix(3);
  CsvReader reader(content, path);
  const std::vector<std::string> header = reader.next().value_or(std::vector<std::string>());
  for (size_t i = 0; i < header.size(); ++i)
    QLORA_CHECK(std::find(header.begin(), header.begin() + static_cast<ptrdiff_t>(i), header[i]) ==
                    header.begin() + static_cast<ptrdiff_t>(i),
                data, "{}:1: the header has column `{}` twice", path, header[i]);
  while (const auto fields = reader.next()) {
    const int line = reader.line();
    const bool cut = fields->size() < header.size() && !content.ends_with('\n') && !reader.next();
    QLORA_CHECK(!cut, data, "{}:{}: {}", path, line, kLastLineCut);
    QLORA_CHECK(fields->size() == header.size(), data, "{}:{}: {} fields, but the header has {} columns",
                path, line, fields->size(), header.size());
    Json json = Json::object();
    for (size_t i = 0; i < header.size(); ++i) json[header[i]] = (*fields)[i];
    use(Row(json, path, line));
  }
}

std::string item_of_words(std::string_view words) {
  return hex(sha256(words)).substr(0, 16);
}

}  // namespace qlora
