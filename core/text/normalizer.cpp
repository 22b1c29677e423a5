#include "core/text/normalizer.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/text/json_read.h"
#include "core/text/pattern.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qlora {
namespace {

using Rewrite = std::function<std::string(std::string)>;

class FunctionNormalizer final : public Normalizer {
 public:
  explicit FunctionNormalizer(Rewrite rewrite) : rewrite_(std::move(rewrite)) {}
  std::string apply(std::string text) const override { return rewrite_(std::move(text)); }

 private:
  Rewrite rewrite_;
};

std::string strip_accents(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    char32_t c = next_code_point(text, at);
    if (!is_combining_mark(c)) append_utf8(out, c);
  }
  return out;
}

std::string strip(std::string_view text, bool left, bool right) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    size_t start = at;
    if (is_white_space(next_code_point(text, at))) continue;
    begin = std::min(begin, start);
    end = at;
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return begin < end ? std::string(text.substr(begin, end - begin)) : std::string();
}

Rewrite normal_form(NormalForm form) {
  return [form](std::string text) { return normalize(text, form); };
}

Rewrite make_rewrite(const Json& json, std::string_view origin);

Rewrite make_sequence(const Json& json, std::string_view origin) {
  std::vector<Rewrite> steps;
  for (const Json& step : array_field(json, "normalizers", origin))
    steps.push_back(make_rewrite(step, origin));
  return [steps](std::string text) {
    for (const Rewrite& step : steps) text = step(std::move(text));
    return text;
  };
}

Rewrite make_prepend(const Json& json, std::string_view origin) {
  std::string prefix = string_field(json, "prepend", origin);
  return [prefix](std::string text) { return text.empty() ? text : prefix + text; };
}

Rewrite make_replace(const Json& json, std::string_view origin) {
  Pattern pattern = pattern_from_json(field(json, "pattern", origin), origin);
  std::string content = string_field(json, "content", origin);
  return [pattern, content](std::string text) { return replace_all(text, pattern, content); };
}

Rewrite make_strip(const Json& json, std::string_view origin) {
  bool left = bool_field_or(json, "strip_left", true, origin);
  bool right = bool_field_or(json, "strip_right", true, origin);
  return [left, right](std::string text) { return strip(text, left, right); };
}

struct Entry {
  const char* type;
  Rewrite (*make)(const Json&, std::string_view origin);
};

constexpr Entry kNormalizers[] = {
    {"Sequence", make_sequence},
    {"Prepend", make_prepend},
    {"Replace", make_replace},
    {"NFC", [](const Json&, std::string_view) { return normal_form(NormalForm::nfc); }},
    {"NFD", [](const Json&, std::string_view) { return normal_form(NormalForm::nfd); }},
    {"NFKC", [](const Json&, std::string_view) { return normal_form(NormalForm::nfkc); }},
    {"NFKD", [](const Json&, std::string_view) { return normal_form(NormalForm::nfkd); }},
    {"Lowercase",
     [](const Json&, std::string_view) -> Rewrite { return [](std::string t) { return lowercase(t); }; }},
    {"StripAccents",
     [](const Json&, std::string_view) -> Rewrite { return [](std::string t) { return strip_accents(t); }; }},
    {"Strip", make_strip},
};

Rewrite make_rewrite(const Json& json, std::string_view origin) {
  std::string type = string_field(json, "type", origin);
  std::vector<std::string> known;
  for (const Entry& entry : kNormalizers) {
    if (type == entry.type) return entry.make(json, origin);
    known.emplace_back(entry.type);
  }
  fail(ErrorKind::data, "{}: {}", origin, unknown_name("normalizer", type, known));
}

}  // namespace

std::unique_ptr<const Normalizer> make_normalizer(const Json* json, std::string_view origin) {
  if (json == nullptr) return nullptr;
  return std::make_unique<FunctionNormalizer>(make_rewrite(*json, origin));
}

}  // namespace qlora
