// Votes in the store: whole, once, and with later readings beside them.
#include <catch2/catch.hpp>

#include "core/base/check.h"
#include "core/base/test_data.h"
#include "results/migrate.h"
#include "results/store.h"
#include "results/test_rows.h"

using namespace qlora;
using namespace qlora::test;
using Catch::Contains;

namespace {

// Both orders on one line, points, a single answer, a vote whose order nobody knows.
std::vector<VoteFile> sample_files() {
  VoteRow whole = vote_row("7", 2, 1);
  whole.turn = 2;
  whole.rater = "3";
  whole.prompt = "pair-v2";
  whole.answer_a = "aaa";
  whole.answer_b = "bbb";
  whole.length_a = 10;
  whole.length_b = 12;
  whole.review = "r1";
  whole.raw = "two\nlines, \"quoted\"";
  VoteRow other_game = whole;
  std::swap(other_game.system_a, other_game.system_b);
  other_game.part = 1;
  VoteRow unknown_order = vote_row("8", 1, 2);
  unknown_order.shown_first = '?';
  unknown_order.score_a = 0.75;
  unknown_order.score_b = 0.25;
  VoteRow single = vote_row("7", -1, 1);
  single.system_b = "";
  single.points = true;
  single.judge = "human";
  return {{"pairs.jsonl", key_of("pairs"), {whole, other_game, unknown_order}},
          {"singles.jsonl", key_of("singles"), {single}}};
}

bool same(const VoteRow& x, const VoteRow& y) {
  return x.judge == y.judge && x.item == y.item && x.turn == y.turn && x.system_a == y.system_a &&
         x.system_b == y.system_b && x.shown_first == y.shown_first && x.rater == y.rater &&
         x.prompt == y.prompt && x.score == y.score && x.points == y.points && x.score_a == y.score_a &&
         x.score_b == y.score_b && x.answer_a == y.answer_a && x.answer_b == y.answer_b &&
         x.length_a == y.length_a && x.length_b == y.length_b && x.review == y.review && x.raw == y.raw &&
         x.line == y.line && x.part == y.part;
}

}  // namespace

TEST_CASE("votes come back from the store as they went in and are stored once") {
  TemporaryFolder dir;
  Store store = Store::open(dir.path() / "r.db");
  const std::vector<VoteFile> files = sample_files();
  CHECK(store.write_votes(files) == 2);
  CHECK(store.write_votes(files) == 0);
  const std::vector<VoteFile> back = Store::open_read_only(dir.path() / "r.db").votes();
  REQUIRE(back.size() == files.size());
  for (size_t f = 0; f < files.size(); ++f) {
    CHECK(back[f].path == files[f].path);
    CHECK(back[f].content == files[f].content);
    REQUIRE(back[f].votes.size() == files[f].votes.size());
    for (size_t v = 0; v < files[f].votes.size(); ++v) CHECK(same(back[f].votes[v], files[f].votes[v]));
  }
}

TEST_CASE("of a file that has grown the newest content counts") {
  TemporaryFolder dir;
  Store store = Store::open(dir.path() / "r.db");
  std::vector<VoteFile> files = sample_files();
  store.write_votes(files);
  files[1].content = key_of("more singles");
  files[1].votes.push_back(files[1].votes[0]);
  files[1].votes[1].line = 2;
  CHECK(store.write_votes(files) == 1);
  REQUIRE(store.votes().size() == 2);
  CHECK(store.votes()[1].votes.size() == 2);
  REQUIRE(store.vote_ids().size() == 2);
  CHECK(store.vote_ids()[1].size() == 2);
}

TEST_CASE("a file counts once however its path is spelled, and a tournament's own files do not count") {
  TemporaryFolder dir;
  Store store = Store::open(dir.path() / "r.db");
  std::vector<VoteFile> files = sample_files();
  TournamentRow row;
  row.key = key_of("tournament");
  row.name = "t";
  row.files = files;
  store.write_tournament(row);
  CHECK((store.votes().empty() && store.vote_ids().empty()));
  CHECK(store.write_votes(files) == 2);  // now they are given too
  for (VoteFile& file : files) file.path = "elsewhere/" + file.path;
  CHECK(store.write_votes(files) == 2);
  REQUIRE((store.votes().size() == 2 && store.vote_ids().size() == 2));
  CHECK(store.votes()[0].path == sample_files()[0].path);
  files[0].path = "elsewhere/another-name.jsonl";  // a name says whose votes they are
  store.write_votes(files);
  CHECK(store.votes().size() == 3);
}

TEST_CASE("a bad vote leaves nothing of its files in the store") {
  TemporaryFolder dir;
  Store store = Store::open(dir.path() / "r.db");
  std::vector<VoteFile> files = sample_files();
  files.back().votes.push_back(files.back().votes.back());  // the same line twice
  CHECK_THROWS_AS(store.write_votes(files), Error);
  CHECK(store.votes().empty());
  files = sample_files();
  files.back().votes.back().score = 7;
  CHECK_THROWS_AS(store.write_votes(files), Error);
  CHECK(store.votes().empty());
}

TEST_CASE("later readings of votes stand beside what the files say") {
  TemporaryFolder dir;
  Store store = Store::open(dir.path() / "r.db");
  store.write_votes(sample_files());
  const auto ids = store.vote_ids();
  REQUIRE(ids.size() == 2);
  REQUIRE(ids[0].size() == 3);
  store.write_vote_parses("scores-1", std::vector<VoteParse>{{ids[1][0], -1, {}, {}}});
  store.write_vote_parses("scores-2", std::vector<VoteParse>{{ids[1][0], 3, 8.0, {}}});
  store.write_vote_parses("scores-2", std::vector<VoteParse>{{ids[1][0], 3, 9.0, {}}});
  CHECK(store.votes()[1].votes[0].score == -1);
  CHECK(store.votes("scores-2")[1].votes[0].score == 3);
  CHECK(store.votes("scores-2")[1].votes[0].score_a == 9.0);
  CHECK(same(store.votes("scores-2")[0].votes[1], store.votes()[0].votes[1]));
  CHECK_THROWS_WITH(store.votes("scores-3"), Contains("did you mean `scores-"));
  CHECK_THROWS_AS(store.write_vote_parses("x", std::vector<VoteParse>{{9999, 1, {}, {}}}), Error);
}

TEST_CASE("votes of an older store are kept when it is brought forward") {
  TemporaryFolder dir;
  Path path = dir.path() / "r.db";
  {
    Database db(path, Database::Mode::create);
    migrate(db, migrations().first(1));
    db.exec("INSERT INTO vote_file(vote_file_id, sha256, path) VALUES (1, zeroblob(32), 'old.jsonl')");
    db.exec("INSERT INTO system(system_id, name) VALUES (1, 'red'), (2, 'blue')");
    db.exec("INSERT INTO judge(judge_id, name) VALUES (1, 'gpt-4')");
    db.exec(
        "INSERT INTO vote VALUES (1, 5, 1, 'item', 1, 2, 'a', '', 3), (1, 6, 1, 'item', 1, 2, 'a', '2', -1)");
  }
  Store store = Store::open(path);
  const std::vector<VoteFile> files = store.votes();
  REQUIRE(files.size() == 1);
  REQUIRE(files[0].votes.size() == 2);
  CHECK(files[0].votes[0].score == 3);
  CHECK(files[0].votes[0].line == 5);
  CHECK(files[0].votes[1].rater == "2");
  CHECK(files[0].votes[1].system_b == "blue");
}
