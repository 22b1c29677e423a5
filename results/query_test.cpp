#include <catch2/catch.hpp>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/test_data.h"
#include "results/query.h"
#include "results/sqlite.h"
#include "results/store.h"
#include "results/test_rows.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Contains;

namespace {

struct Fixture {
  TemporaryFolder dir;
  Path path = dir.path() / "r.db";
  Fixture() {
    std::vector<RunRow> rows = {run_row("one"), run_row("two", 16)};
    Store::open(path).declare_sweep("s", "", rows);
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "a query returns typed rows") {
  Table t = run_query(path,
                      "SELECT name, lora_r, learning_rate, NULL AS none, x'0aff' AS bytes FROM run ORDER "
                      "BY name;  -- end");
  REQUIRE(t.columns == std::vector<std::string>{"name", "lora_r", "learning_rate", "none", "bytes"});
  REQUIRE(t.rows.size() == 2);
  CHECK(t.rows[0][0] == Value("one"));
  CHECK(t.rows[1][1] == Value(int64_t{16}));
  CHECK(t.rows[0][2] == Value(2e-4));
  CHECK(t.rows[0][3] == Value());
  CHECK(t.rows[0][4] == Value(Bytes{0x0a, 0xff}));
}

TEST_CASE_METHOD(Fixture, "views and JSON and recursion and the schema can be read") {
  for (const char* sql :
       {"SELECT * FROM leaderboard", "SELECT * FROM runs_view", "SELECT * FROM run_parameters",
        "SELECT * FROM elo_latest", "SELECT * FROM votes_view", "SELECT * FROM curves",
        "SELECT * FROM scores", "SELECT * FROM mmlu_by_subject",
        "SELECT key, value FROM run, json_each(config)", "PRAGMA table_info(run)",
        "SELECT name FROM pragma_table_info('run')", "PRAGMA user_version", "SELECT sql FROM sqlite_schema",
        "EXPLAIN QUERY PLAN SELECT * FROM run", "SELECT sqrt(2), group_concat(name) FROM run",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT max(i) FROM n"}) {
    INFO(sql);
    CHECK_NOTHROW(run_query(path, sql));
  }
}

TEST_CASE_METHOD(Fixture, "a query cannot change anything") {
  std::string before = read_file(path);
  Path other = dir.path() / "other.db";
  for (const std::string& sql : std::vector<std::string>{
           "DELETE FROM run", "UPDATE run SET name = 'x'", "INSERT INTO judge(name) VALUES ('x')",
           "DROP TABLE run", "CREATE TABLE t(x)", "CREATE TEMP TABLE t(x)",
           "ATTACH '" + other.string() + "' AS o", "VACUUM INTO '" + other.string() + "'",
           "PRAGMA journal_mode = DELETE", "PRAGMA user_version = 99", "PRAGMA query_only = OFF",
           "PRAGMA writable_schema = ON", "BEGIN IMMEDIATE", "SELECT load_extension('x')",
           "WITH d AS (SELECT 1) DELETE FROM run"}) {
    INFO(sql);
    try {
      run_query(path, sql);
      FAIL("accepted");
    } catch (const Error& e) {
      CHECK(e.kind() == ErrorKind::usage);
    }
  }
  CHECK(read_file(path) == before);
  CHECK_FALSE(std::filesystem::exists(other));
}

TEST_CASE_METHOD(Fixture, "mistakes in SQL are explained") {
  CHECK_THROWS_WITH(run_query(path, "SELECT lora_rank FROM run"), Contains("no such column: lora_rank"));
  CHECK_THROWS_WITH(run_query(path, "SELEC 1"), Contains("syntax error"));
  CHECK_THROWS_WITH(run_query(path, "  -- nothing"), Contains("no statement"));
  CHECK_THROWS_WITH(run_query(path, "SELECT 1; SELECT 2"), Contains("one statement"));
  CHECK_THROWS_WITH(run_query(path, "SELECT 1; nonsense"), Contains("one statement"));
  CHECK_THROWS_WITH(run_query(dir.path() / "none.db", "SELECT 1"), Contains("no such results store"));
}

TEST_CASE_METHOD(Fixture, "a query that does not end is ended") {
  const char* endless =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
  QueryLimits limits;
  limits.seconds = 0.2;
  CHECK_THROWS_WITH(run_query(path, endless, limits), Contains("longer than 0.2 s"));
  limits = {};
  limits.max_rows = 10;
  CHECK_THROWS_WITH(
      run_query(path, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
                limits),
      Contains("more than 10 rows"));
  CHECK_THROWS_AS(run_query(path, "SELECT hex(zeroblob(900000000))"), Error);
}
