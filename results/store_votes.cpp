// Votes: judgments as their files hold them, and what parsers made of their words since.
#include <algorithm>
#include <map>
#include <set>

#include "core/base/check.h"
#include "core/base/names.h"
#include "results/store_impl.h"

namespace qlora {

namespace {

VoteRow vote_row(const Statement& row) {
  VoteRow v;
  v.judge = row.text(2);
  v.item = row.text(3);
  v.turn = static_cast<int>(row.integer(4));
  v.system_a = row.text(5);
  v.system_b = row.text(6);
  v.shown_first = row.text(7)[0];
  v.rater = row.text(8);
  v.prompt = row.text(9);
  v.score = static_cast<int>(row.integer(10));
  v.score_a = row.optional_real(11);
  v.score_b = row.optional_real(12);
  v.points = row.integer(13) != 0;
  v.answer_a = row.text(14);
  v.answer_b = row.text(15);
  v.length_a = row.integer(16);
  v.length_b = row.integer(17);
  v.review = row.text(18);
  v.raw = row.text(19);
  v.line = row.integer(20);
  v.part = static_cast<int>(row.integer(21));
  return v;
}

// The files whose votes count, in the order in which they were stored: of each path the newest content, and
// of a file that was named in several ways ("votes/x", "./votes/x") the first.
std::vector<int64_t> counted_files(const Database& db) {
  Statement rows(
      db,
      "SELECT vote_file_id, sha256, path FROM vote_file f WHERE given AND vote_file_id = (SELECT "
      "max(vote_file_id) FROM vote_file g WHERE g.given AND g.path = f.path) ORDER BY vote_file_id");
  std::set<std::pair<Digest, std::string>> seen;
  std::vector<int64_t> files;
  while (rows.step())
    if (seen.emplace(rows.digest(1), Path(rows.text(2)).filename().string()).second)
      files.push_back(rows.integer(0));
  return files;
}

}  // namespace

int64_t Store::Impl::vote_file_id(const VoteFile& file) const {
  Statement find(database, "SELECT vote_file_id FROM vote_file WHERE sha256 = ? AND path = ?");
  if (find.bind(file.content, file.path).step()) return find.integer(0);
  Statement make(database,
                 "INSERT INTO vote_file(sha256, path, given) VALUES (?, ?, 0) RETURNING vote_file_id");
  make.bind(file.content, file.path).step();
  int64_t id = make.integer(0);
  make.reset();

  std::map<std::string, int64_t> systems, judges;
  auto known = [](std::map<std::string, int64_t>& ids, const std::string& name, auto find_id) {
    auto [place, fresh] = ids.try_emplace(name, 0);
    if (fresh) place->second = find_id(name);
    return place->second;
  };
  auto system = [&](const std::string& name) {
    return known(systems, name, [&](const std::string& n) { return system_id(n); });
  };
  Statement insert(
      database,
      "INSERT INTO vote(source_file, source_line, source_part, judge_id, item, turn, system_a, system_b, "
      "shown_first, rater, prompt, score, points, score_a, score_b, answer_a, answer_b, length_a, length_b, "
      "review, "
      "raw) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  for (const VoteRow& v : file.votes) {
    int64_t judge = known(judges, v.judge, [&](const std::string& n) { return judge_id(n); });
    std::optional<int64_t> other;
    if (!v.system_b.empty()) other = system(v.system_b);
    insert.run(id, v.line, v.part, judge, v.item, v.turn, system(v.system_a), other,
               std::string(1, v.shown_first), v.rater, v.prompt, v.score, v.points, v.score_a, v.score_b,
               v.answer_a, v.answer_b, v.length_a, v.length_b, v.review, v.raw);
  }
  return id;
}

int64_t Store::write_votes(std::span<const VoteFile> files) {
  impl_->flush();
  Transaction transaction(impl_->database);
  constexpr const char* kCount = "SELECT count(*) FROM vote_file WHERE given";
  int64_t before = impl_->database.integer(kCount);
  Statement give(impl_->database, "UPDATE vote_file SET given = 1 WHERE vote_file_id = ?");
  for (const VoteFile& file : files) give.run(impl_->vote_file_id(file));
  int64_t added = impl_->database.integer(kCount) - before;
  transaction.commit();
  return added;
}

std::vector<VoteFile> Store::votes(const std::string& parser) const {
  const Database& db = impl_->database;
  if (!parser.empty()) {
    std::vector<std::string> known;
    Statement names(db, "SELECT DISTINCT parser FROM vote_parse ORDER BY parser");
    while (names.step()) known.push_back(names.text(0));
    QLORA_CHECK(std::find(known.begin(), known.end(), parser) != known.end(), usage, "{}: {}",
                db.path().string(), unknown_name("parser of stored votes", parser, known));
  }
  Statement rows(
      db,
      "SELECT f.sha256, f.path, j.name, v.item, v.turn, a.name, b.name, v.shown_first, v.rater, v.prompt, "
      "ifnull(p.score, v.score), iif(p.score IS NULL, v.score_a, p.score_a), "
      "iif(p.score IS NULL, v.score_b, p.score_b), v.points, v.answer_a, v.answer_b, v.length_a, v.length_b, "
      "v.review, v.raw, v.source_line, v.source_part "
      "FROM vote v JOIN vote_file f ON f.vote_file_id = v.source_file JOIN judge j USING (judge_id) "
      "JOIN system a ON a.system_id = v.system_a LEFT JOIN system b ON b.system_id = v.system_b "
      "LEFT JOIN vote_parse p ON p.vote_id = v.vote_id AND p.parser = ? "
      "WHERE f.vote_file_id = ? ORDER BY v.source_line, v.source_part");
  std::vector<VoteFile> files;
  for (int64_t file : counted_files(db)) {
    rows.bind(parser, file);
    for (bool first = true; rows.step(); first = false) {
      if (first) files.push_back({rows.text(1), rows.digest(0), {}});
      files.back().votes.push_back(vote_row(rows));
    }
    rows.reset();
  }
  return files;
}

std::vector<std::vector<int64_t>> Store::vote_ids() const {
  Statement rows(impl_->database,
                 "SELECT vote_id FROM vote WHERE source_file = ? ORDER BY source_line, source_part");
  std::vector<std::vector<int64_t>> ids;
  for (int64_t file : counted_files(impl_->database)) {
    rows.bind(file);
    for (bool first = true; rows.step(); first = false) {
      if (first) ids.emplace_back();
      ids.back().push_back(rows.integer(0));
    }
    rows.reset();
  }
  return ids;
}

void Store::write_vote_parses(const std::string& parser, std::span<const VoteParse> parses) {
  impl_->flush();
  Transaction transaction(impl_->database);
  Statement insert(
      impl_->database,
      "INSERT OR REPLACE INTO vote_parse(vote_id, parser, score, score_a, score_b) VALUES (?, ?, ?, ?, ?)");
  for (const VoteParse& parse : parses)
    insert.run(parse.vote_id, parser, parse.score, parse.score_a, parse.score_b);
  transaction.commit();
}

}  // namespace qlora
