// The schema, its versions, and files that are no store.
#include <catch2/catch.hpp>
#include <set>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/test_data.h"
#include "core/base/test_errors.h"
#include "results/migrate.h"
#include "results/store.h"

using namespace qlora;
using Catch::Contains;
using test::message_of;

TEST_CASE("landed migrations are never edited") {
  // One line for each file in results/schema, added when it lands. A change of the schema is a further file.
  std::vector<std::string> frozen = {
      "ca33c0b68223cda50aea5086e11b57fc4d39df358340cd977d0f00d4244568cf",
      "ce5b6d8c9fa2aed830ba77eb481ee64d774f8a42f90ca056061f4f5d779e73e1",
      "00fbc36bc763960b827f5cabaa7210faf374579319797609dd700e44da91d978",
      "07299fd964cbed83c3a38955db99376b692901fed51ffe28c4ccef0b38b4668a",
      "98e313bff3781a0938dcde8a77cd26acbe0def6089420b2adb6bd7531ca4806a",
      "1a8e1a6fa19e3630ef6f8c578e1cf81def7a6c38819bd4bee2cc8f004070ba7e",
      "48aa088af6709e7a5542dd60ac718a3e9aa3cfd23bd071cb455a8db9d26abd36",
      "c461f57af24f5df29baa660dd9505fb1616a921776f22e67d1a35a2eaf595589",
      "347c7ba1f49ecce7778cc97b9fd959b2978ee1ff0edd47dbe1adb931774ea4b9",
  };
  REQUIRE(migrations().size() == frozen.size());
  for (size_t i = 0; i < frozen.size(); ++i) {
    INFO(migrations()[i].name);
    CHECK(migrations()[i].version == static_cast<int>(i) + 1);
    CHECK(hex(sha256(migrations()[i].sql)) == frozen[i]);
  }
}

TEST_CASE("a new store has the settings that it promises") {
  test::TemporaryFolder dir;
  Store::open(dir.path() / "r.db");
  Database db(dir.path() / "r.db", Database::Mode::write);
  CHECK(db.integer("PRAGMA user_version") == migrations().back().version);
  CHECK(db.integer("PRAGMA application_id") == kApplicationId);
  CHECK(db.integer("PRAGMA page_size") == 8192);
  CHECK(db.integer("PRAGMA foreign_keys") == 1);
  Statement mode(db, "PRAGMA journal_mode");
  REQUIRE(mode.step());
  CHECK(mode.text(0) == "wal");
  CHECK_THROWS_AS(db.exec("SELECT \"no such column\""), Error);
  // Every table is STRICT.
  CHECK(db.integer(
            "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict = 0 "
            "AND name NOT LIKE 'sqlite_%'") == 0);
}

TEST_CASE("the schema refuses wrong types and broken references and bad JSON and unknown states") {
  test::TemporaryFolder dir;
  Store::open(dir.path() / "r.db");
  Database db(dir.path() / "r.db", Database::Mode::write);
  const std::string time = "'2024-01-01T00:00:00.000Z'";
  db.exec(
      "INSERT INTO run(run_id, run_key, name, config, created_at) VALUES (1, zeroblob(32), 'a', "
      "'{\"lora_r\": 8}', " +
      time + ")");
  CHECK(db.integer("SELECT lora_r FROM run") == 8);
  for (const std::string& bad : std::vector<std::string>{
           "INSERT INTO metric_name(metric_id, name) VALUES ('one', 'x')",  // type
           "INSERT INTO run(run_key, name, config, created_at) VALUES (zeroblob(31), 'b', '{}', " + time +
               ")",
           "INSERT INTO run(run_key, name, config, created_at) VALUES (randomblob(32), 'b', '{', " + time +
               ")",
           "INSERT INTO run(run_key, name, config, created_at) VALUES (randomblob(32), 'b', '{}', 'today')",
           "INSERT INTO run(run_key, name, config, created_at) VALUES (zeroblob(32), 'b', '{}', " + time +
               ")",
           "UPDATE run SET state = 'done'",
           "UPDATE run SET state = 'finished'",                                  // no time
           "INSERT INTO sweep_run(sweep_id, ordinal, run_id) VALUES (7, 0, 1)",  // reference
           "DELETE FROM run WHERE run_id = 2; INSERT INTO metric VALUES (2, 1, 1, 0.5)",
           "INSERT INTO rating VALUES (1, 1, 'high', 0, NULL, NULL, '', 0, 0, 0, 0)",
       }) {
    INFO(bad);
    CHECK_THROWS_AS(db.exec(bad), Error);
  }
}

TEST_CASE("a file that is no store is refused and left as it was") {
  test::TemporaryFolder dir;
  Path text = dir.path() / "text.db", foreign = dir.path() / "foreign.db";
  std::string content(5000, 'x');
  write_file(text, content);
  for (auto open : {Store::open, Store::open_read_only})
    CHECK_THAT(message_of(ErrorKind::data, [&] { open(text); }),
               Contains("not a results store") && Contains("text.db"));
  CHECK(read_file(text) == content);

  Database(foreign, Database::Mode::create).exec("CREATE TABLE theirs(x); INSERT INTO theirs VALUES (1)");
  std::string before = read_file(foreign);
  for (auto open : {Store::open, Store::open_read_only})
    CHECK_THAT(message_of(ErrorKind::data, [&] { open(foreign); }),
               Contains("no results store of this program"));
  CHECK(read_file(foreign) == before);

  CHECK_THAT(message_of(ErrorKind::data, [&] { Store::open_read_only(dir.path() / "none.db"); }),
             Contains("none.db"));
  CHECK_FALSE(std::filesystem::exists(dir.path() / "none.db"));
  CHECK_THROWS_AS(Store::open(dir.path() / "no/folder/r.db"), Error);
  CHECK_THROWS_AS(Store::open(dir.path()), Error);
}

TEST_CASE("a store of a newer version is refused with both versions named") {
  test::TemporaryFolder dir;
  Path path = dir.path() / "r.db";
  Store::open(path);
  int newest = migrations().back().version;
  Database(path, Database::Mode::write).exec(fmt::format("PRAGMA user_version = {}", newest + 6));
  for (auto open : {Store::open, Store::open_read_only})
    CHECK_THAT(
        message_of(ErrorKind::data, [&] { open(path); }),
        Contains(fmt::format("schema version {}", newest + 6)) && Contains(fmt::format("knows {}", newest)));
}

TEST_CASE("migrations bring an older store forward whole or not at all and keep a copy") {
  test::TemporaryFolder dir;
  Path path = dir.path() / "r.db";
  std::vector<Migration> steps(migrations().begin(), migrations().end());
  int first = steps.back().version;
  Database db(path, Database::Mode::create);
  migrate(db, steps);
  db.exec("INSERT INTO metric_name(name) VALUES ('loss')");

  steps.push_back({first + 1, "next.sql", "ALTER TABLE metric_name ADD COLUMN unit TEXT"});
  steps.push_back({first + 2, "broken.sql", "CREATE TABLE half(x) STRICT; SELECT nonsense"});
  CHECK_THROWS_AS(migrate(db, steps), Error);
  CHECK(db.integer("PRAGMA user_version") == first + 1);
  CHECK(db.integer("SELECT count(*) FROM sqlite_schema WHERE name = 'half'") == 0);
  CHECK(db.integer("PRAGMA foreign_keys") == 1);

  steps.back() = {first + 2, "dangling.sql", "INSERT INTO metric(run_id, metric_id, step) VALUES (99, 1, 1)"};
  CHECK_THAT(message_of(ErrorKind::failure, [&] { migrate(db, steps); }), Contains("dangling.sql"));
  CHECK(db.integer("SELECT count(*) FROM metric") == 0);

  steps.back() = {first + 2, "good.sql", "CREATE TABLE whole(x INTEGER) STRICT"};
  migrate(db, steps);
  CHECK(db.integer("PRAGMA user_version") == first + 2);
  CHECK(db.integer("SELECT count(*) FROM metric_name WHERE name = 'loss'") == 1);
  Path copy = path;
  copy += fmt::format(".v{}.bak", first);
  Database old(copy, Database::Mode::read);
  CHECK(old.integer("PRAGMA user_version") == first);
  CHECK(old.integer("SELECT count(*) FROM metric_name WHERE name = 'loss'") == 1);
}

TEST_CASE("tournaments of an older store are kept with their ratings and files") {
  test::TemporaryFolder dir;
  Path path = dir.path() / "r.db";
  {
    Database db(path, Database::Mode::create);
    migrate(db, migrations().first(7));
    db.exec(
        "INSERT INTO tournament SELECT value, randomblob(32), 't' || value, iif(value = 1, 'elo', "
        "'bradley-terry'), '{}', 5, 0, '2024-01-01T00:00:00.000Z' FROM (SELECT 1 AS value UNION SELECT 2);"
        "INSERT INTO system(system_id, name) VALUES (1, 'red');"
        "INSERT INTO rating VALUES (1, 1, 1010, 3, NULL, NULL, '', 5, 4, 1, 0), "
        "(2, 1, 1020, 0, 1000, 1040, 'sandwich', 5, 4, 1, 0);"
        "INSERT INTO vote_file(vote_file_id, sha256, path) VALUES (1, zeroblob(32), 'votes.jsonl');"
        "INSERT INTO tournament_file VALUES (2, 1)");
  }
  Store store = Store::open(path);
  CHECK(std::get<double>(store.ratings("t1").at(0, "rating")) == 1010);
  CHECK(std::get<double>(store.ratings("t2").at(0, "ci_hi")) == 1040);
  Database db(path, Database::Mode::write);
  CHECK(db.integer("SELECT count(*) FROM elo_latest WHERE tournament = 't2' AND method = 'bt'") == 1);
  CHECK(db.integer("SELECT count(*) FROM tournament_file WHERE tournament_id = 2") == 1);
  // What belongs to a tournament still goes with it.
  db.exec("DELETE FROM tournament");
  CHECK(db.integer("SELECT (SELECT count(*) FROM rating) + (SELECT count(*) FROM tournament_file)") == 0);
}

TEST_CASE("runs of an older store are told apart by what they stand on") {
  test::TemporaryFolder dir;
  Path path = dir.path() / "r.db";
  {
    Database db(path, Database::Mode::create);
    migrate(db, migrations().first(8));
    db.exec(R"(INSERT INTO run(run_id, run_key, name, config, created_at)
      SELECT value ->> 0, randomblob(32), 'r' || (value ->> 0), value ->> 1, '2024-01-01T00:00:00.000Z' FROM json_each('[
        [1, {"bits": 8, "quant_type": "int8", "double_quant": true}],
        [2, {"bits": 8, "quant_type": "int8", "double_quant": false}],
        [3, {"bits": 4, "quant_type": "nf4", "double_quant": true}],
        [4, {"bits": 32, "quant_type": "nf4", "double_quant": true}],
        [5, {"quant_type": "fp4"}],
        [6, {}]]'))");
    CHECK(db.integer("SELECT count(*) FROM run WHERE quant = 'none'") == 4);
  }
  Store::open(path);
  Database db(path, Database::Mode::read);
  for (const char* table : {"run", "runs_view", "leaderboard"}) {
    INFO(table);
    Statement quants(
        db, fmt::format("SELECT group_concat(quant) FROM (SELECT quant FROM {} ORDER BY run_id)", table));
    REQUIRE(quants.step());
    CHECK(quants.text(0) == "int8+dq,int8,nf4+dq,none,fp4,none");
  }
  CHECK(db.integer("SELECT count(*) FROM sqlite_schema WHERE name = 'run_by_setting'") == 1);
}

TEST_CASE("the write-ahead log is refused on network file systems") {
  test::TemporaryFolder dir;
  CHECK(file_system_kind(0x6969) == FileSystem::network);
  CHECK(file_system_kind(0x0BD00BD0) == FileSystem::network);
  CHECK(file_system_kind(static_cast<int32_t>(0xFF534D42)) == FileSystem::network);
  CHECK(file_system_kind(0x65735546) == FileSystem::unsure);
  CHECK(file_system_kind(0xEF53) == FileSystem::local);
  Database db(dir.path() / "r.db", Database::Mode::create);
  CHECK_THAT(message_of(ErrorKind::usage, [&] { set_journal(db, FileSystem::network); }),
             Contains("network file system"));
  set_journal(db, FileSystem::unsure);
  Statement mode(db, "PRAGMA journal_mode");
  REQUIRE(mode.step());
  CHECK(mode.text(0) == "delete");
}
