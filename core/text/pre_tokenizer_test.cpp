// Normalizers and pre-tokenizers of a tokenizer.json, one by one.

#include "core/text/pre_tokenizer.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/text/normalizer.h"

namespace qlora {
namespace {

using Strings = std::vector<std::string>;

Json json(const char* text) {
  return parse_json(text, "test");
}

Strings words(const char* config, const std::string& text, bool first = true) {
  Json parsed = json(config);
  PreText cut{text, {{0, text.size(), first}}};
  make_pre_tokenizer(parsed.is_null() ? nullptr : &parsed, "file.json")(cut);
  Strings found;
  for (const Piece& piece : cut.pieces) found.emplace_back(cut.view(piece));
  return found;
}

Strings split_at_dash(const std::string& behavior, const std::string& text, bool invert = false) {
  Json config = {
      {"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", invert}};
  return words(config.dump().c_str(), text);
}

std::string normal(const char* config, const std::string& text) {
  Json parsed = json(config);
  return make_normalizer(&parsed, "file.json")->apply(text);
}

}  // namespace

TEST_CASE("A split treats its matches as the behavior says") {
  CHECK(split_at_dash("Removed", "the-final--countdown") == Strings{"the", "final", "countdown"});
  CHECK(split_at_dash("Isolated", "the-final--countdown") ==
        Strings{"the", "-", "final", "-", "-", "countdown"});
  CHECK(split_at_dash("MergedWithPrevious", "the-final--countdown") ==
        Strings{"the-", "final-", "-", "countdown"});
  CHECK(split_at_dash("MergedWithNext", "the-final--countdown") ==
        Strings{"the", "-final", "-", "-countdown"});
  CHECK(split_at_dash("Contiguous", "the-final--countdown") ==
        Strings{"the", "-", "final", "--", "countdown"});
  CHECK(split_at_dash("Removed", "a-b", true) == Strings{"-"});
  CHECK(split_at_dash("MergedWithPrevious", "-a") == Strings{"-", "a"});
  CHECK(split_at_dash("MergedWithNext", "a-") == Strings{"a", "-"});
  CHECK(split_at_dash("Isolated", "") == Strings{});
  CHECK_THROWS_WITH(split_at_dash("Removd", ""), Catch::Contains("Removed"));
}

TEST_CASE("A split by a regular expression finds what the pattern says") {
  const char* kSplit = R"({"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated"})";
  CHECK(words(kSplit, "a12345b") == Strings{"a", "123", "45", "b"});
}

TEST_CASE("Digits stand alone or in runs") {
  CHECK(words(R"({"type": "Digits", "individual_digits": true})", "a12\xC2\xBD") ==
        Strings{"a", "1", "2", "\xC2\xBD"});
  CHECK(words(R"({"type": "Digits", "individual_digits": false})", "a12b3") == Strings{"a", "12", "b", "3"});
}

TEST_CASE("Byte level writes bytes as characters and can put a space in front") {
  CHECK(words(R"({"type": "ByteLevel", "add_prefix_space": false})", "Hi there\n") ==
        Strings{"Hi", "\xC4\xA0there", "\xC4\x8A"});
  CHECK(words(R"({"type": "ByteLevel", "add_prefix_space": true})", "Hi") == Strings{"\xC4\xA0Hi"});
  CHECK(words(R"({"type": "ByteLevel", "add_prefix_space": true})", " Hi") == Strings{"\xC4\xA0Hi"});
  CHECK(words(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})", "a b") ==
        Strings{"a\xC4\xA0"
                "b"});
  CHECK(words(R"({"type": "ByteLevel", "add_prefix_space": false})", "\xC3\xA9") ==
        Strings{"\xC3\x83\xC2\xA9"});
}

TEST_CASE("Metaspace marks spaces and prepends by its scheme") {
  const std::string kMark = "\xE2\x96\x81";
  const char* kAlways = R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"})";
  const char* kFirst =
      R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false})";
  const char* kOld = R"({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false})";
  CHECK(words(kAlways, "Hey you") == Strings{kMark + "Hey", kMark + "you"});
  CHECK(words(kAlways, " Hey  x") == Strings{kMark + "Hey", kMark, kMark + "x"});
  CHECK(words(kFirst, "Hey you") == Strings{kMark + "Hey" + kMark + "you"});
  CHECK(words(kFirst, "Hey you", false) == Strings{"Hey" + kMark + "you"});
  CHECK(words(kOld, "Hey you") == Strings{"Hey", kMark + "you"});
  CHECK_THROWS_WITH(words(R"({"type": "Metaspace", "prepend_scheme": "some"})", ""),
                    Catch::Contains("prepend_scheme"));
}

TEST_CASE("Whitespace and punctuation split as in the Hugging Face library") {
  CHECK(words(R"({"type": "Whitespace"})", "Hey, you--x ") == Strings{"Hey", ",", "you", "--", "x"});
  CHECK(words(R"({"type": "WhitespaceSplit"})", " Hey,\tyou ") == Strings{"Hey,", "you"});
  CHECK(words(R"({"type": "Punctuation"})", "a,b..") == Strings{"a", ",", "b", ".", "."});
  CHECK(words(R"({"type": "Punctuation", "behavior": "Contiguous"})", "b..") == Strings{"b", ".."});
  CHECK(
      words(
          R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation"}]})",
          "a, b") == Strings{"a", ",", "b"});
  CHECK(words("null", "a b") == Strings{"a b"});
}

TEST_CASE("Normalizers rewrite the text") {
  CHECK(normal(R"({"type": "NFC"})", "e\xCC\x81") == "\xC3\xA9");
  CHECK(normal(R"({"type": "NFD"})", "\xC3\xA9") == "e\xCC\x81");
  CHECK(normal(R"({"type": "NFKC"})", "\xEF\xAC\x81") == "fi");
  CHECK(normal(R"({"type": "NFKD"})", "\xEF\xAC\x81\xC3\xA9") == "fie\xCC\x81");
  CHECK(normal(R"({"type": "Lowercase"})", "\xC3\x89T\xC4\xB0") == "\xC3\xA9ti\xCC\x87");
  CHECK(normal(R"({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]})",
               "\xC3\xA9t\xC3\xA9") == "ete");
  CHECK(normal(R"({"type": "Prepend", "prepend": "_"})", "a") == "_a");
  CHECK(normal(R"({"type": "Prepend", "prepend": "_"})", "").empty());
  CHECK(normal(R"({"type": "Replace", "pattern": {"String": " "}, "content": "_"})", "a  b") == "a__b");
  CHECK(normal(R"({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "$0"})", "a   b c") ==
        "a$0b c");
  CHECK(normal(R"({"type": "Strip", "strip_left": true, "strip_right": false})", " a ") == "a ");
  CHECK(normal(R"({"type": "Strip"})", " \t ").empty());
}

TEST_CASE("Unknown or incomplete parts of a tokenizer file are errors that name it") {
  CHECK_THROWS_WITH(words(R"({"type": "ByteLevl"})", ""),
                    Catch::Contains("file.json") && Catch::Contains("ByteLevel"));
  CHECK_THROWS_WITH(words(R"({"type": "Split", "behavior": "Isolated"})", ""),
                    Catch::Contains("`pattern` is missing"));
  CHECK_THROWS_WITH(words(R"({"type": "Digits", "individual_digits": 1})", ""),
                    Catch::Contains("true or false"));
  CHECK_THROWS_WITH(normal(R"({"type": "Precompiled"})", ""), Catch::Contains("normalizer"));
  CHECK_THROWS_WITH(normal(R"({"type": "Replace", "pattern": {"String": ""}, "content": ""})", ""),
                    Catch::Contains("empty"));
}

}  // namespace qlora
