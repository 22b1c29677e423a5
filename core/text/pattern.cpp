#include "core/text/pattern.h"

#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/text/json_read.h"
#include "core/text/regex.h"
#include "core/text/utf8.h"

namespace qlora {

Pattern literal_pattern(std::string literal) {
  return [literal = std::move(literal)](std::string_view text, const Found& found) {
    for (size_t at = text.find(literal); at != std::string_view::npos;
         at = text.find(literal, at + literal.size())) {
      found(at, at + literal.size());
    }
  };
}

Pattern regex_pattern(std::string_view regex, std::string_view origin) {
  auto compiled = std::make_shared<const Regex>(regex, origin);  // std::function must be copyable
  return [compiled](std::string_view text, const Found& found) { compiled->each_match(text, found); };
}

Pattern character_pattern(bool (*kind)(char32_t)) {
  return [kind](std::string_view text, const Found& found) {
    for (size_t at = 0; at < text.size();) {
      size_t begin = at;
      if (kind(next_code_point(text, at))) found(begin, at);
    }
  };
}

Pattern pattern_from_json(const Json& json, std::string_view origin) {
  if (json.is_object() && json.contains("Regex"))
    return regex_pattern(string_field(json, "Regex", origin), origin);
  std::string literal = string_field(json, "String", origin);
  QLORA_CHECK(!literal.empty(), data, "{}: an empty string as a pattern", origin);
  return literal_pattern(std::move(literal));
}

std::string replace_all(std::string_view text, const Pattern& pattern, std::string_view content) {
  std::string out;
  size_t done = 0;
  pattern(text, [&](size_t begin, size_t end) {
    out.append(text.substr(done, begin - done)).append(content);
    done = end;
  });
  return out.append(text.substr(done));
}

}  // namespace qlora
