#include "datasets/reader.h"

#include <catch2/catch.hpp>

#include "core/base/test_data.h"
#include "datasets/test_tools.h"

using namespace qlora;
using test::expect_error;

TEST_CASE("A JSON list and JSON lines give the same records with the lines they stand on") {
  auto list = parse_records(
      "a.json", "[\n  {\"x\": \"1\",\n   \"y\": [\"}\", {\"z\": 1}]},\n  {\"x\": \"\\\"]\"}\n]\n");
  auto lines = parse_records("a.jsonl", "{\"x\": \"1\", \"y\": []}\n\n{\"x\": \"\\\"]\"}");
  REQUIRE(list.size() == 2);
  REQUIRE(lines.size() == 2);
  for (size_t i = 0; i < 2; ++i) CHECK(list[i].text("x") == lines[i].text("x"));
  CHECK(list[0].where.text() == "a.json:2");
  CHECK(list[1].where.text() == "a.json:4");
  CHECK(lines[1].where.text() == "a.jsonl:3");
  CHECK(list[0].fields.at("y").kind == FieldValue::Kind::list);
}

TEST_CASE("A file named json that holds one object a line is read as lines") {
  auto records = parse_records("zero_shot.json", "\xEF\xBB\xBF{\"input\": \"q\"}\n{\"input\": \"r\"}\n");
  REQUIRE(records.size() == 2);
  CHECK(records[1].text("input") == "r");
}

TEST_CASE("CSV fields may be quoted and span lines and TSV differs only in its separator") {
  auto csv = parse_records("a.csv", "instruction,output\r\n\"say \"\"hi\"\",\nnow\",hi\r\n\r\nlast,\"\"\n");
  REQUIRE(csv.size() == 2);
  CHECK(csv[0].text("instruction") == "say \"hi\",\nnow");
  CHECK(csv[0].text("output") == "hi");
  CHECK(csv[1].where.text() == "a.csv:5");
  CHECK(csv[1].text("output").empty());
  auto tsv = parse_records("a.tsv", "input\toutput\na,b\tc");
  REQUIRE(tsv.size() == 1);
  CHECK(tsv[0].text("input") == "a,b");
}

TEST_CASE("Broken data files are refused with file and line") {
  expect_error(ErrorKind::data, {"a.jsonl:2:7", "JSON"}, [] { parse_records("a.jsonl", "{}\n{\"x\": }\n"); });
  expect_error(ErrorKind::data, {"a.json:3:"}, [] { parse_records("a.json", "[\n{\"x\": 1},\n{\"x\" 1}]"); });
  expect_error(ErrorKind::data, {"a.jsonl:1", "expected an object, found array"},
               [] { parse_records("a.jsonl", "[1]\n"); });
  expect_error(ErrorKind::data, {"a.csv:3", "3 fields", "names 2"},
               [] { parse_records("a.csv", "a,b\n1,2\n1,2,3\n"); });
  expect_error(ErrorKind::data, {"a.csv:2", "never ends"},
               [] { parse_records("a.csv", "a,b\n1,\"2\n3,4\n"); });
  expect_error(ErrorKind::data, {"a.csv:2", "after the closing quote"},
               [] { parse_records("a.csv", "a,b\n\"1\"x,2\n"); });
  expect_error(ErrorKind::data, {"a.csv:2", "`b`", "UTF-8"},
               [] { parse_records("a.csv", "a,b\n1,\xC3(\n"); });
  expect_error(ErrorKind::data, {"a.jsonl", "no records"}, [] { parse_records("a.jsonl", "\n\n"); });
  expect_error(ErrorKind::data, {"a.jsno", ".json"}, [] { parse_records("a.jsno", "{}"); });
}

TEST_CASE("A field that is missing or not text is named with its place") {
  auto records = parse_records("a.jsonl", "{\"x\": 5, \"n\": null}\n");
  expect_error(ErrorKind::data, {"a.jsonl:1", "`x`", "found a number"}, [&] { records[0].text("x"); });
  expect_error(ErrorKind::data, {"a.jsonl:1", "no field `output`", "`n`, `x`"},
               [&] { records[0].text("output"); });
  CHECK(records[0].optional_text("n").empty());
  CHECK(records[0].optional_text("missing").empty());
}

TEST_CASE("Instruction files of the field are read whole", "[golden]") {
  std::filesystem::path root = test::test_data() / "05_instruct";
  if (test::missing(root)) return;
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    Path plain = entry.path().extension() == ".gz" ? entry.path().stem() : entry.path();
    if (!entry.is_regular_file() || plain.extension() != ".jsonl") continue;
    std::string content = read_file(entry.path());
    if (!content.starts_with('{')) continue;  // lists of texts are no data sets
    INFO(entry.path().string());
    CHECK(!parse_records(entry.path(), content).empty());
    ++files;
  }
  CHECK(files > 0);
}
