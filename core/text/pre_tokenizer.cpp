#include "core/text/pre_tokenizer.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/text/byte_level.h"
#include "core/text/json_read.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qlora {
namespace {

constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kWordsRegex = R"(\w+|[^\w\s]+)";
constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581

SplitBehavior behavior_of(const std::string& name, std::string_view origin) {
  static const std::vector<std::pair<std::string, SplitBehavior>> kBehaviors = {
      {"Removed", SplitBehavior::removed},
      {"Isolated", SplitBehavior::isolated},
      {"MergedWithPrevious", SplitBehavior::merged_with_previous},
      {"MergedWithNext", SplitBehavior::merged_with_next},
      {"Contiguous", SplitBehavior::contiguous},
  };
  std::vector<std::string> known;
  for (const auto& [known_name, behavior] : kBehaviors) {
    if (name == known_name) return behavior;
    known.push_back(known_name);
  }
  fail(ErrorKind::data, "{}: {}", origin, unknown_name("split behavior", name, known));
}

PreTokenizer splitter(Pattern pattern, SplitBehavior behavior, bool invert = false) {
  return [pattern = std::move(pattern), behavior, invert](PreText& text) {
    split(text, pattern, behavior, invert);
  };
}

PreTokenizer make_sequence(const Json& json, std::string_view origin) {
  std::vector<PreTokenizer> steps;
  for (const Json& step : array_field(json, "pretokenizers", origin)) {
    steps.push_back(make_pre_tokenizer(&step, origin));
  }
  return [steps](PreText& text) {
    for (const PreTokenizer& step : steps) step(text);
  };
}

PreTokenizer make_byte_level(const Json& json, std::string_view origin) {
  return byte_level_pre_tokenizer(bool_field_or(json, "add_prefix_space", true, origin),
                                  bool_field_or(json, "use_regex", true, origin));
}

PreTokenizer make_split(const Json& json, std::string_view origin) {
  return splitter(pattern_from_json(field(json, "pattern", origin), origin),
                  behavior_of(string_field(json, "behavior", origin), origin),
                  bool_field_or(json, "invert", false, origin));
}

PreTokenizer make_digits(const Json& json, std::string_view origin) {
  bool individual = bool_field_or(json, "individual_digits", false, origin);
  return splitter(character_pattern(is_numeric),
                  individual ? SplitBehavior::isolated : SplitBehavior::contiguous);
}

PreTokenizer make_punctuation(const Json& json, std::string_view origin) {
  return splitter(character_pattern(is_punctuation),
                  behavior_of(string_field_or(json, "behavior", "Isolated", origin), origin));
}

PreTokenizer make_whitespace(const Json&, std::string_view origin) {
  return splitter(regex_pattern(kWordsRegex, origin), SplitBehavior::removed, true);
}

PreTokenizer make_whitespace_split(const Json&, std::string_view) {
  return splitter(character_pattern(is_white_space), SplitBehavior::removed);
}

// Older files say add_prefix_space, newer ones prepend_scheme.
std::string prepend_scheme(const Json& json, std::string_view origin) {
  bool prefix = bool_field_or(json, "add_prefix_space", true, origin);
  std::string scheme = string_field_or(json, "prepend_scheme", prefix ? "always" : "never", origin);
  QLORA_CHECK(scheme == "always" || scheme == "first" || scheme == "never", data,
              "{}: prepend_scheme `{}`: expected always, first or never", origin, scheme);
  return scheme;
}

PreTokenizer make_metaspace(const Json& json, std::string_view origin) {
  std::string mark = string_field_or(json, "replacement", std::string(kMetaspace), origin);
  QLORA_CHECK(!mark.empty(), data, "{}: Metaspace with an empty replacement", origin);
  std::string scheme = prepend_scheme(json, origin);
  bool cut = bool_field_or(json, "split", true, origin);
  Pattern marks = literal_pattern(mark), spaces = literal_pattern(" ");
  return [=](PreText& text) {
    rewrite(text, [&](std::string_view piece, bool first, std::string& out) {
      std::string replaced = replace_all(piece, spaces, mark);
      bool wanted = scheme == "always" || (scheme == "first" && first);
      if (wanted && !replaced.starts_with(mark)) out += mark;
      out += replaced;
    });
    if (cut) split(text, marks, SplitBehavior::merged_with_next);
  };
}

struct Entry {
  const char* type;
  PreTokenizer (*make)(const Json&, std::string_view origin);
};

constexpr Entry kPreTokenizers[] = {
    {"Sequence", make_sequence},
    {"ByteLevel", make_byte_level},
    {"Split", make_split},
    {"Digits", make_digits},
    {"Metaspace", make_metaspace},
    {"Whitespace", make_whitespace},
    {"Punctuation", make_punctuation},
    {"WhitespaceSplit", make_whitespace_split},
};

}  // namespace

PreTokenizer byte_level_pre_tokenizer(bool add_prefix_space, bool use_regex) {
  Pattern words = use_regex ? regex_pattern(kGpt2Regex, "ByteLevel") : Pattern();
  return [=](PreText& text) {
    if (add_prefix_space) {
      rewrite(text, [](std::string_view piece, bool, std::string& out) {
        if (!piece.starts_with(' ')) out += ' ';
        out += piece;
      });
    }
    if (words) split(text, words, SplitBehavior::isolated);
    rewrite(text, [](std::string_view piece, bool, std::string& out) { append_byte_level(out, piece); });
  };
}

PreTokenizer make_pre_tokenizer(const Json* json, std::string_view origin) {
  if (json == nullptr) return [](PreText&) {};
  std::string type = string_field(*json, "type", origin);
  std::vector<std::string> known;
  for (const Entry& entry : kPreTokenizers) {
    if (type == entry.type) return entry.make(*json, origin);
    known.emplace_back(entry.type);
  }
  fail(ErrorKind::data, "{}: {}", origin, unknown_name("pre-tokenizer", type, known));
}

}  // namespace qlora
