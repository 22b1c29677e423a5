#include "core/text/stop_strings.h"

#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "core/base/philox.h"

using namespace qlora;

namespace {

struct Streamed {
  std::string text;
  bool stopped = false;
};

Streamed stream(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  StopStrings s(stops);
  Streamed all;
  for (const std::string& piece : pieces) all.text += s.push(piece);
  all.stopped = s.stopped();
  all.text += s.finish();
  return all;
}

}  // namespace

TEST_CASE("A stop that lies across pieces ends the text and is not shown") {
  StopStrings s({"### Human:"});
  CHECK(s.push("Yes. #") == "Yes. ");
  CHECK(s.push("## ").empty());
  CHECK(s.push("Title #") == "### Title ");
  CHECK(s.push("## Hum").empty());
  CHECK_FALSE(s.stopped());
  CHECK(s.push("an: more").empty());
  CHECK(s.stopped());
  CHECK(s.push("### more").empty());
  CHECK(s.finish().empty());
}

TEST_CASE("Text that only looks like a stop comes out at the end") {
  Streamed all = stream({"a", "\n", "\n"}, {"\n\n\n"});
  CHECK(all.text == "a\n\n");
  CHECK_FALSE(all.stopped);
  CHECK(stream({"a\n\n", "\n"}, {"\n\n\n"}).text == "a");
  CHECK(stream({"x", "y"}, {}).text == "xy");
}

TEST_CASE("The stop that is complete first counts and of equal ends the longest") {
  CHECK(cut_at_stop("abcde", std::vector<std::string>{"abcde", "cd"}) == "ab");
  CHECK(cut_at_stop("abcde", std::vector<std::string>{"d", "bcd"}) == "a");
  CHECK(cut_at_stop("abc", std::vector<std::string>{"x"}) == "abc");
  CHECK(cut_at_stop("", std::vector<std::string>{"x"}).empty());
  CHECK_THROWS_AS(StopStrings({"a", ""}), Error);
}

TEST_CASE("What is shown does not depend on how the text is cut into pieces") {
  const std::vector<std::vector<std::string>> stop_lists = {
      {"aba"}, {"aab", "ba"}, {"bb", "abb", "aaaa"}, {"abab", "a"}, {"bbbbbbb"}};
  PhiloxStream random(3);
  for (int round = 0; round < 400; ++round) {
    std::string text;
    std::vector<std::string> pieces;
    for (uint32_t n = random.below(9); n > 0; --n) {
      std::string piece;
      for (uint32_t m = random.below(5); m > 0; --m) piece += static_cast<char>('a' + random.below(2));
      text += piece;
      pieces.push_back(piece);
    }
    for (const auto& stops : stop_lists) {
      INFO(text << " / " << stops[0]);
      Streamed all = stream(pieces, stops);
      CHECK(all.text == cut_at_stop(text, stops));
      CHECK(all.stopped == (all.text.size() < text.size()));
    }
  }
}
