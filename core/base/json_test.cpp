#include "core/base/json.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "core/base/error.h"

using namespace qlora;

TEST_CASE("a number that no double holds is bad JSON of the named file") {
  try {
    parse_json(R"({"rope_theta": 1e999})", "config.json");
    FAIL("accepted");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::data);
    CHECK_THAT(e.what(), Catch::StartsWith("config.json: not valid JSON") && Catch::Contains("1e999"));
  }
}
