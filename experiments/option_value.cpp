#include "experiments/option_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

namespace qlora {
namespace {

// 1_000 is 1000; an underscore anywhere but between digits makes the text no number.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    bool inside = i > 0 && i + 1 < text.size() && std::isdigit(static_cast<unsigned char>(text[i - 1])) &&
                  std::isdigit(static_cast<unsigned char>(text[i + 1]));
    if (!inside) return std::nullopt;
  }
  return out;
}

std::optional<double> parse_number(std::string_view text) {
  std::optional<std::string> digits = without_underscores(text);
  if (!digits || digits->empty()) return std::nullopt;
  const char* begin = digits->data();
  const char* end = begin + digits->size();
  if (*begin == '+') ++begin;
  const char* first = begin + (begin != end && *begin == '-' ? 1 : 0);
  // from_chars also reads "inf" and "nan", and nobody means ten by 010.
  if (first == end || !(std::isdigit(static_cast<unsigned char>(*first)) || *first == '.'))
    return std::nullopt;
  if (end - first > 1 && *first == '0' && std::isdigit(static_cast<unsigned char>(first[1])))
    return std::nullopt;
  double value = 0;
  auto [stop, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

std::optional<bool> parse_bool(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (text == "true" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "no" || text == "off") return false;
  return std::nullopt;
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    size_t comma = std::min(text.find(','), text.size());
    std::string_view word = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
    while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
    if (!word.empty()) words.emplace_back(word);
  }
  return words;
}

[[noreturn]] void wrong(const YamlNode& node, ValueKind kind, std::string_view what) {
  fail(ErrorKind::usage, "{}: `{}` must be {}, found {}", node.where.text(), what, name_of(kind),
       describe(node));
}

std::vector<std::string> read_list(const YamlNode& node, std::string_view what) {
  if (node.kind == YamlNode::Kind::scalar) return split_words(node.text);
  std::vector<std::string> words;
  for (const YamlNode& item : node.items) {
    if (item.kind != YamlNode::Kind::scalar) wrong(item, ValueKind::text, what);
    words.push_back(item.text);
  }
  return words;
}

}  // namespace

const char* name_of(ValueKind kind) {
  switch (kind) {
    case ValueKind::boolean:
      return "yes or no";
    case ValueKind::integer:
      return "a whole number";
    case ValueKind::number:
      return "a number";
    case ValueKind::text:
      return "a word";
    case ValueKind::list:
      return "a list of words";
  }
  return "";
}

OptionValue read_value(const YamlNode& node, ValueKind kind, std::string_view what) {
  bool listed = kind == ValueKind::list && node.kind == YamlNode::Kind::list;
  if (node.kind != YamlNode::Kind::scalar && !listed) wrong(node, kind, what);
  if (kind == ValueKind::text) return node.text;
  if (kind == ValueKind::list) return read_list(node, what);
  if (kind == ValueKind::boolean) {
    if (std::optional<bool> value = parse_bool(node.text); value && !node.quoted) return *value;
    wrong(node, kind, what);
  }
  std::optional<double> number = node.quoted ? std::nullopt : parse_number(node.text);
  if (!number) wrong(node, kind, what);
  if (kind == ValueKind::number) return *number;
  // Doubles hold every integer up to 2^53: larger ones would be rounded without a word.
  if (*number != std::floor(*number) || std::abs(*number) > 9007199254740992.0) wrong(node, kind, what);
  return static_cast<int64_t>(*number);
}

std::string to_string(const OptionValue& value) {
  if (auto* text = std::get_if<std::string>(&value)) return *text;
  if (auto* list = std::get_if<std::vector<std::string>>(&value)) {
    if (list->size() == 1) return list->front();
    std::string out = "[";
    for (size_t i = 0; i < list->size(); ++i) out += (i == 0 ? "" : ", ") + (*list)[i];
    return out + "]";
  }
  if (auto* number = std::get_if<double>(&value)) return fmt::format("{}", *number);
  return to_json(value).dump();
}

Json to_json(const OptionValue& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

OptionValue option_value_from(const Json& json, ValueKind kind, std::string_view what) {
  try {
    switch (kind) {
      case ValueKind::boolean:
        return json.get<bool>();
      case ValueKind::integer:
        return json.get<int64_t>();
      case ValueKind::number:
        return json.get<double>();
      case ValueKind::text:
        return json.get<std::string>();
      case ValueKind::list:
        return json.get<std::vector<std::string>>();
    }
  } catch (const Json::exception&) {
  }
  fail(ErrorKind::data, "`{}` must be {}, found {}", what, name_of(kind), json.dump());
}

}  // namespace qlora
