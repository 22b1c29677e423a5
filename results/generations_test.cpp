// Generated answers in the store.
#include <catch2/catch.hpp>

#include "core/base/check.h"
#include "core/base/test_data.h"
#include "results/sqlite.h"
#include "results/store.h"
#include "results/test_rows.h"

using namespace qlora;
using namespace qlora::test;

namespace {

GenerationSetRow set_row(const std::string& name, const std::string& settings) {
  GenerationSetRow row;
  row.key = key_of(name + settings);
  row.subject = base_subject();
  row.questions = {"vicuna", "80", "generate", key_of("questions")};
  row.system = name;
  row.settings_json = settings;
  row.program = "qlora test";
  return row;
}

GenerationRow answer_row(const std::string& question, int64_t turn, const std::string& answer) {
  return {question, turn, key_of("prompt" + question), answer + " ### Human: no", answer, 7, "stop", ""};
}

}  // namespace

TEST_CASE("generated answers are kept one by one and come back") {
  TemporaryFolder dir;
  const GenerationSetRow set = set_row("tiny", R"({"template": "guanaco", "decode_numerics": "fast"})");
  {
    Store store = Store::open(dir.path() / "r.db");
    CHECK(store.generations(set.key).empty());
    CHECK_THROWS_AS(store.write_generation(set.key, answer_row("1", 1, "a")), Error);
    CHECK(store.declare_generations(set) == "tiny");
    store.write_generation(set.key, answer_row("2", 1, "b"));
    store.write_generation(set.key, answer_row("1", 2, "c"));
    store.write_generation(set.key, answer_row("1", 1, "a"));
  }
  Store store = Store::open(dir.path() / "r.db");
  CHECK(store.declare_generations(set) == "tiny");
  store.write_generation(set.key, answer_row("2", 1, "another"));  // the first stays
  const std::vector<GenerationRow> rows = store.generations(set.key);
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].answer == "a");
  CHECK(rows[1].turn == 2);
  CHECK(rows[2].answer == "b");
  CHECK(rows[2].text == "b ### Human: no");
  CHECK(rows[2].prompt == key_of("prompt2"));
  CHECK(rows[2].tokens == 7);
  CHECK(rows[2].finish == "stop");
  CHECK_FALSE(rows[2].created_at.empty());
  Database db(dir.path() / "r.db", Database::Mode::read);
  Statement view(db, "SELECT system, template, decode_numerics, questions FROM generations LIMIT 1");
  REQUIRE(view.step());
  CHECK(view.text(0) == "tiny");
  CHECK(view.text(1) == "guanaco");
  CHECK(view.text(2) == "fast");
  CHECK(view.text(3) == "vicuna");
}

TEST_CASE("answers made in another way compete under another name") {
  TemporaryFolder dir;
  Store store = Store::open(dir.path() / "r.db");
  const GenerationSetRow first = set_row("tiny", R"({"seed": 0})"),
                         second = set_row("tiny", R"({"seed": 1})");
  CHECK(store.declare_generations(first) == "tiny");
  CHECK(store.declare_generations(second) == "tiny-" + hex(second.key).substr(0, 8));
  // On other questions the name is free.
  GenerationSetRow other = second;
  other.key = key_of("other");
  other.questions = {"oa", "953", "generate", key_of("other questions")};
  CHECK(store.declare_generations(other) == "tiny");
  other.key = key_of("third");
  other.subject = {key_of("another base"), false, "tiny", "tiny", "none"};
  other.questions = {"mt", "80", "generate", key_of("more questions")};
  CHECK(store.declare_generations(other) == "tiny-" + hex(other.key).substr(0, 8));
  GenerationSetRow unknown = set_row("run", "{}");
  unknown.subject = run_subject("nobody");
  CHECK_THROWS_AS(store.declare_generations(unknown), Error);
  unknown.settings_json = "[]";
  CHECK_THROWS_AS(store.declare_generations(unknown), Error);
}
