#include "core/text/decoder.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/text/byte_level.h"
#include "core/text/json_read.h"
#include "core/text/pattern.h"
#include "core/text/utf8.h"

namespace qlora {
namespace {

using Tokens = std::vector<std::string>;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::string_view kMetaspace = "\xE2\x96\x81";    // U+2581

Tokens decode_byte_level(Tokens tokens) {
  std::string bytes;
  for (const std::string& token : tokens) append_from_byte_level(bytes, token);
  return {repair_utf8(bytes)};
}

// The value of <0x00> ... <0xFF>; -1 for any other token.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return -1;
  int value = 0;
  for (char c : token.substr(3, 2)) {
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

// Runs of byte tokens become their text, or one U+FFFD per byte when they are no UTF-8.
Tokens decode_byte_fallback(Tokens tokens) {
  Tokens out;
  std::string bytes;
  auto flush = [&] {
    if (bytes.empty()) return;
    if (invalid_utf8(bytes) == bytes.size()) {
      out.push_back(bytes);
    } else {
      for (size_t i = 0; i < bytes.size(); ++i) out.emplace_back(kReplacement);
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (int byte = byte_of(token); byte >= 0) {
      bytes.push_back(static_cast<char>(static_cast<uint8_t>(byte)));
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  return out;
}

Tokens decode_fuse(Tokens tokens) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  return {all};
}

Decoder make_sequence(const Json& json, std::string_view origin) {
  std::vector<Decoder> steps;
  for (const Json& step : array_field(json, "decoders", origin)) steps.push_back(make_decoder(&step, origin));
  return [steps](Tokens tokens) {
    for (const Decoder& step : steps) tokens = step(std::move(tokens));
    return tokens;
  };
}

Decoder make_replace(const Json& json, std::string_view origin) {
  Pattern pattern = pattern_from_json(field(json, "pattern", origin), origin);
  std::string content = string_field(json, "content", origin);
  return [pattern, content](Tokens tokens) {
    for (std::string& token : tokens) token = replace_all(token, pattern, content);
    return tokens;
  };
}

Decoder make_strip(const Json& json, std::string_view origin) {
  std::string content = string_field(json, "content", origin);
  int64_t start = int_field_or(json, "start", 0, origin), stop = int_field_or(json, "stop", 0, origin);
  QLORA_CHECK(!content.empty(), data, "{}: Strip with an empty content", origin);
  return [content, start, stop](Tokens tokens) {
    for (std::string& token : tokens) {
      for (int64_t i = 0; i < start && token.starts_with(content); ++i) token.erase(0, content.size());
      for (int64_t i = 0; i < stop && token.ends_with(content); ++i)
        token.erase(token.size() - content.size());
    }
    return tokens;
  };
}

Decoder make_metaspace(const Json& json, std::string_view origin) {
  std::string mark = string_field_or(json, "replacement", std::string(kMetaspace), origin);
  QLORA_CHECK(!mark.empty(), data, "{}: Metaspace with an empty replacement", origin);
  bool prefix = bool_field_or(json, "add_prefix_space", true, origin);
  bool prepended = string_field_or(json, "prepend_scheme", prefix ? "always" : "never", origin) != "never";
  Pattern marks = literal_pattern(mark);
  return [prepended, marks](Tokens tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = replace_all(tokens[i], marks, i == 0 && prepended ? "" : " ");
    }
    return tokens;
  };
}

Decoder make_bpe(const Json& json, std::string_view origin) {
  std::string suffix = string_field_or(json, "suffix", "</w>", origin);
  QLORA_CHECK(!suffix.empty(), data, "{}: BPEDecoder with an empty suffix", origin);
  Pattern ends = literal_pattern(suffix);
  return [ends](Tokens tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = replace_all(tokens[i], ends, i + 1 == tokens.size() ? "" : " ");
    }
    return tokens;
  };
}

struct Entry {
  const char* type;
  Decoder (*make)(const Json&, std::string_view origin);
};

constexpr Entry kDecoders[] = {
    {"Sequence", make_sequence},
    {"ByteLevel", [](const Json&, std::string_view) -> Decoder { return decode_byte_level; }},
    {"Replace", make_replace},
    {"ByteFallback", [](const Json&, std::string_view) -> Decoder { return decode_byte_fallback; }},
    {"Fuse", [](const Json&, std::string_view) -> Decoder { return decode_fuse; }},
    {"Strip", make_strip},
    {"Metaspace", make_metaspace},
    {"BPEDecoder", make_bpe},
};

Tokens join_with_spaces(Tokens tokens) {
  std::string all;
  for (size_t i = 0; i < tokens.size(); ++i) all += (i == 0 ? "" : " ") + tokens[i];
  return {all};
}

}  // namespace

Decoder make_decoder(const Json* json, std::string_view origin) {
  if (json == nullptr) return join_with_spaces;
  std::string type = string_field(*json, "type", origin);
  std::vector<std::string> known;
  for (const Entry& entry : kDecoders) {
    if (type == entry.type) return entry.make(*json, origin);
    known.emplace_back(entry.type);
  }
  fail(ErrorKind::data, "{}: {}", origin, unknown_name("decoder", type, known));
}

}  // namespace qlora
