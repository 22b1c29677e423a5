// UTF-8, Unicode properties, and regular expressions with the meaning that tokenizer files give them.

#include "core/text/regex.h"

#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/text/unicode.h"
#include "core/text/utf8.h"

namespace qlora {
namespace {

std::vector<std::string> matches(const std::string& pattern, std::string_view text) {
  std::vector<std::string> found;
  Regex(pattern, "test").each_match(text, [&](size_t b, size_t e) {
    found.emplace_back(text.substr(b, e - b));
  });
  return found;
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("Code points are read and written as UTF-8") {
  for (char32_t c : {U'a', U'\u00e9', U'\u2581', U'\U0001f680', U'\U0010ffff'}) {
    std::string text = to_utf8(c);
    size_t at = 0;
    CHECK(next_code_point(text, at) == c);
    CHECK(at == text.size());
    CHECK(invalid_utf8(text) == text.size());
  }
}

TEST_CASE("Ill formed UTF-8 is found and repaired one replacement per maximal subpart") {
  const std::string kBad = "\xEF\xBF\xBD";
  for (const auto& [text, at, repaired] : std::vector<std::tuple<std::string, size_t, std::string>>{
           {"abc", 3, "abc"},
           {"a\x80z", 1, "a" + kBad + "z"},
           {"\xC3", 0, kBad},
           {"x\xF0\x9F\x9A", 1, "x" + kBad},                    // a truncated character is one subpart
           {"\xF0\x9F\x41", 0, kBad + "A"},                     // broken off by a letter
           {"\xED\xA0\x80", 0, kBad + kBad + kBad},             // a surrogate
           {"\xC0\xAF", 0, kBad + kBad},                        // an over-long form
           {"\xF4\x90\x80\x80", 0, kBad + kBad + kBad + kBad},  // beyond U+10FFFF
       }) {
    CHECK(invalid_utf8(text) == at);
    CHECK(repair_utf8(text) == repaired);
  }
}

TEST_CASE("Characters have the properties that tokenizer files mean") {
  CHECK(is_white_space(U'\u00a0'));
  CHECK(is_white_space(U'\u3000'));
  CHECK_FALSE(is_white_space(U'\u180e'));
  CHECK_FALSE(is_white_space(U'\u200b'));
  CHECK(is_numeric(U'7'));
  CHECK(is_numeric(U'\u00bd'));  // one half
  CHECK(is_numeric(U'\u2163'));  // roman four
  CHECK_FALSE(is_numeric(U'x'));
  CHECK(is_punctuation(U'$'));  // a symbol to Unicode, punctuation in ASCII
  CHECK(is_punctuation(U'\u3002'));
  CHECK_FALSE(is_punctuation(U'\u20ac'));
  CHECK(is_word(U'_'));
  CHECK(is_word(U'\u0301'));
  CHECK(is_word(U'\u200d'));
  CHECK_FALSE(is_word(U'-'));
}

TEST_CASE("Regular expressions split words as GPT-2 and Llama 3 do") {
  CHECK(matches(R"( ?\p{L}+| ?\p{N}+|\s+(?!\S)|\s+)", "ab  cd 12") == Strings{"ab", " ", " cd", " 12"});
  CHECK(matches(R"((?i:'s|'ll))", "he'S we'LL") == Strings{"'S", "'LL"});
  CHECK(matches(R"(\s+)", "a\xC2\xA0\xE2\x80\xA8z\xE1\xA0\x8E") == Strings{"\xC2\xA0\xE2\x80\xA8"});
  CHECK(matches(R"([^\s]+)", "a\xC2\xA0z") == Strings{"a", "z"});
  CHECK(matches(R"(\S+)", "a z") == Strings{"a", "z"});
  CHECK(matches(R"(\w+)", "e\xCC\x81t_1-x") == Strings{"e\xCC\x81t_1", "x"});  // a combining accent is \w
  CHECK(matches(R"([[:alpha:]\]]+)", "ab]1") == Strings{"ab]"});
  CHECK(matches(R"([]x]+)", "a]x") == Strings{"]x"});
  CHECK(matches("x*", "\xC3\xA9x") == Strings{"", "x", ""});
  CHECK(matches("a", "").empty());
}

TEST_CASE("A long run of blanks is matched without trouble") {
  std::string text(200'000, ' ');
  CHECK(matches(R"(\s+(?!\S)|\s+)", text + "x") == Strings{text.substr(1), " "});
}

TEST_CASE("Regular expressions whose meaning differs between the engines are refused") {
  for (const char* pattern :
       {R"(\p{N}{1,3}+)", R"([a[bc]])", R"([a-z&&[^b]])", R"(\h)", R"([\S])", "a\\", "[[:x"}) {
    CAPTURE(pattern);
    CHECK_THROWS_WITH(Regex(pattern, "file.json"),
                      Catch::Contains("not supported") && Catch::Contains("file.json"));
  }
  CHECK_THROWS_WITH(Regex("(a", "file.json"), Catch::Contains("does not compile"));
  CHECK_NOTHROW(Regex(R"(\{x\}+)", "file.json"));
}

}  // namespace qlora
