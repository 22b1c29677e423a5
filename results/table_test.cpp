#include <catch2/catch.hpp>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "results/table.h"

using namespace qlora;

namespace {

Table sample() {
  return {
      {"name", "r", "loss", "note"},
      {{"a", int64_t{8}, 1.23456, std::monostate{}}, {"lang\xC3\xA9", int64_t{128}, 12345.6, "two\nlines"}}};
}

}  // namespace

TEST_CASE("a table is aligned with numbers to the right") {
  CHECK(render_text(sample()) ==
        "name     r   loss  note\n"
        "-----  ---  -----  ---------\n"
        "a        8  1.235\n"
        "lang\xC3\xA9  128  12346  two lines\n");
  TextStyle style;
  style.header = false;
  style.null = "-";
  style.max_width = 4;
  style.digits = 2;
  CHECK(render_text(sample(), style) ==
        "a       8    1.2  -\n"
        "l...  128  12346  t...\n");
  style.decimals = 1;
  CHECK_THAT(render_text(sample(), style), Catch::Contains("    1.2") && Catch::Contains("12345.6"));
  CHECK(render_text({{"x"}, {}}) == "x\n-\n");
}

TEST_CASE("a table as JSON keeps column order and full precision") {
  Table t = sample();
  t.columns[3] = "name";
  t.rows[0][3] = Bytes{0x0a, 0xff};
  t.rows[1][2] = std::numeric_limits<double>::infinity();
  std::string text = render_json(t);
  CHECK(text ==
        "[\n"
        "  {\"name\": \"a\", \"r\": 8, \"loss\": 1.23456, \"name_2\": \"0aff\"},\n"
        "  {\"name\": \"lang\xC3\xA9\", \"r\": 128, \"loss\": null, \"name_2\": \"two\\nlines\"}\n"
        "]\n");
  CHECK(parse_json(text, "table") == to_json(t));
  CHECK(render_json({{"x"}, {}}) == "[]\n");
}

TEST_CASE("an unknown column is answered with the nearest") {
  CHECK(sample().column("loss") == 2);
  CHECK_THROWS_WITH(sample().column("los"), Catch::Contains("did you mean `loss`"));
}
