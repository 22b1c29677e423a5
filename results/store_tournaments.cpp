// Tournaments: ratings, and the votes they rest on.
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/names.h"
#include "results/store_impl.h"

namespace qlora {

bool Store::has_tournament(const Digest& key) const {
  return Statement(impl_->database, "SELECT 1 FROM tournament WHERE tournament_key = ?").bind(key).step();
}

void Store::write_tournament(const TournamentRow& row) {
  QLORA_CHECK(parse_json(row.params_json, "parameters of tournament " + row.name).is_object(), usage,
              "tournament {}: the parameters must be a JSON object", row.name);
  impl_->flush();
  const Database& db = impl_->database;
  Transaction transaction(db);
  if (has_tournament(row.key)) return;
  Statement insert(
      db,
      "INSERT INTO tournament(tournament_key, name, method, params, matches, invalid, created_at) "
      "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING tournament_id");
  insert.bind(row.key, row.name, row.method, row.params_json, row.matches, row.invalid, now_utc()).step();
  int64_t id = insert.integer(0);
  insert.reset();

  Statement link(
      db, "INSERT INTO tournament_file(tournament_id, vote_file_id) VALUES (?, ?) ON CONFLICT DO NOTHING");
  for (const VoteFile& file : row.files) link.run(id, impl_->vote_file_id(file));
  Statement rating(
      db,
      "INSERT INTO rating(tournament_id, system_id, rating, order_sd, ci_lo, ci_hi, ci_method, games, "
      "wins, losses, ties) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  for (const RatingRow& r : row.ratings)
    rating.run(id, impl_->system_id(r.system), r.rating, r.order_sd, r.ci_lo, r.ci_hi, r.ci_method, r.games, r.wins,
               r.losses, r.ties);
  transaction.commit();
}

Table Store::ratings(const std::string& tournament) const {
  const Database& db = impl_->database;
  constexpr const char* kSelect =
      "SELECT tournament, rank, system, rating, order_sd, ci_lo, ci_hi, games, wins, losses, ties FROM "
      "elo_latest";
  if (tournament.empty()) return Statement(db, kSelect).table();
  Statement rows(db, fmt::format("{} WHERE tournament = ?", kSelect));
  Table table = rows.bind(tournament).table();
  if (!table.empty()) return table;
  std::vector<std::string> known;
  Statement names(db, "SELECT DISTINCT name FROM tournament ORDER BY name");
  while (names.step()) known.push_back(names.text(0));
  fail(ErrorKind::usage, "{}: {}", db.path().string(), unknown_name("tournament", tournament, known));
}

Table Store::ratings_of(const Digest& key) const {
  Statement rows(
      impl_->database,
      "SELECT t.name AS tournament, rank() OVER (ORDER BY g.rating DESC) AS rank, s.name AS system, "
      "g.rating, g.order_sd, g.ci_lo, g.ci_hi, g.games, g.wins, g.losses, g.ties "
      "FROM rating g JOIN tournament t USING (tournament_id) JOIN system s USING (system_id) "
      "WHERE t.tournament_key = ? ORDER BY g.rating DESC");
  return rows.bind(key).table();
}

}  // namespace qlora
