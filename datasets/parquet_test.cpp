// Parquet files that pyarrow wrote (parquet/fixtures/make.py): the same rows in several ways.
#include "datasets/parquet/parquet.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/test_data.h"
#include "core/base/test_errors.h"

using namespace qlora;
using test::message_of;

namespace {

Path fixture(const std::string& name) {
  return Path(test::source_folder()) / "datasets/parquet/fixtures" / (name + ".parquet");
}

const Json kRows = Json::parse(R"([
  {"question": "1 + 1 = ?", "subject": "arithmetic", "choices": ["1", "2", "3", "4"], "answer": 1, "weight": 0.5,
   "hard": false, "extra": {"text": ["x"], "label": "n"}, "turns": [{"role": "user", "n": 1}]},
  {"question": "Größe?\nzwei Zeilen", "subject": "deutsch", "choices": [], "answer": null, "weight": -1.25,
   "hard": true, "extra": null, "turns": []},
  {"question": null, "subject": "deutsch", "choices": null, "answer": -7, "weight": null, "hard": null,
   "extra": {"text": null, "label": null},
   "turns": [{"role": "a", "n": 2}, null, {"role": null, "n": 3}]},
  {"question": "", "subject": "arithmetic", "choices": ["only", null], "answer": 1099511627776, "weight": 1e300,
   "hard": true, "extra": {"text": [], "label": "é"}, "turns": null}])");

}  // namespace

TEST_CASE("Parquet files give the rows that were written whatever their pages and packing are") {
  for (const char* name : {"snappy", "plain", "gzip_groups", "zstd_v2", "small_pages"}) {
    CAPTURE(name);
    const std::vector<Json> rows = read_parquet(fixture(name));
    REQUIRE(rows.size() == 20);
    for (size_t i = 0; i < rows.size(); ++i) CHECK(rows[i].dump() == kRows[i % 4].dump());
  }
}

TEST_CASE("what the Parquet reader does not know is refused by name") {
  CHECK(message_of([] { read_parquet(fixture("int96")); }).find("column when has type INT96") !=
        std::string::npos);
  CHECK(message_of([] { read_parquet(fixture("date")); }).find("column answer has type DATE") !=
        std::string::npos);
  CHECK(message_of([] { read_parquet(fixture("timestamp")); }).find("column answer has type TIMESTAMP") !=
        std::string::npos);
  CHECK(message_of([] { read_parquet(fixture("nested_list")); }).find("a list inside a list") !=
        std::string::npos);
  CHECK(message_of([] { read_parquet(fixture("lz4")); }).find("column a: packed by codec 7") !=
        std::string::npos);
}

TEST_CASE("text that is not UTF-8 is an error with file, row and column") {
  std::string bytes = read_file(fixture("plain"));
  // The last of five such rows; what stands later is the footer.
  const size_t at = bytes.rfind("zwei Zeilen", bytes.rfind("question"));
  REQUIRE(at != std::string::npos);
  bytes[at] = '\xff';
  CHECK(message_of(ErrorKind::data, [&] { parse_parquet(bytes, "f.parquet"); }) ==
        "f.parquet: row 18: column question is not UTF-8 text");
}

TEST_CASE("a damaged Parquet file is an error and never worse") {
  for (const char* name : {"snappy", "plain", "gzip_groups", "zstd_v2"}) {
    CAPTURE(name);
    const std::string whole = read_file(fixture(name));
    CHECK(message_of([&] {
            parse_parquet(whole.substr(0, whole.size() / 2), "f");
          }).find("not a whole Parquet") != std::string::npos);
    int errors = 0;
    for (size_t at = 4; at < whole.size() - 4; at += 23)
      for (const char flip : {'\x01', '\x80', '\xff'}) {
        std::string bytes = whole;
        bytes[at] = static_cast<char>(bytes[at] ^ flip);
        try {
          parse_parquet(bytes, "f");  // some bytes are statistics or text: nothing to notice
        } catch (const Error& e) {
          CHECK(std::string(e.what()).starts_with("f: "));
          ++errors;
        }
      }
    CHECK(errors > 20);
  }
}
