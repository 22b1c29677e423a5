#include <catch2/catch.hpp>

#include "core/base/error.h"
#include "datasets/csv.h"

using namespace qlora;
using Fields = std::vector<std::string>;

TEST_CASE("CSV fields keep commas quotes and line breaks inside quotes") {
  std::string text = "a,\"b, \"\"c\"\"\nd\",\r\n\n\"\",x";
  CsvReader csv(text, "t.csv");
  CHECK(csv.next() == Fields{"a", "b, \"c\"\nd", ""});
  CHECK(csv.line() == 1);
  CHECK(csv.next() == Fields{"", "x"});
  CHECK(csv.line() == 4);
  CHECK_FALSE(csv.next());
}

TEST_CASE("tab-separated text leaves commas alone") {
  std::string text = "a,b\tc\n";
  CsvReader csv(text, "t.tsv", '\t');
  CHECK(csv.next() == Fields{"a,b", "c"});
}

TEST_CASE("a broken CSV quote is reported with its line") {
  auto message = [](const std::string& text) {
    try {
      CsvReader csv(text, "t.csv");
      while (csv.next()) {
      }
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  CHECK(message("a,b\n\"c,d\n") == "t.csv:2: a quoted field never ends; is the file cut off?");
  CHECK(message("\"a\"b,c\n") == "t.csv:1: text after the closing quote of a field");
}
