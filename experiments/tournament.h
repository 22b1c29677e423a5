#pragma once
// Tournaments of a sweep file and of `qlora elo compute`: judgment files in, ratings out.

#include "eval/judge/judgments.h"
#include "experiments/evals.h"
#include "results/records.h"

namespace qlora {

// Reads what the specification names, and checks it. The key follows the name, the method, its
// parameters and the files' content. `rate` (costly) gives the ratings.
class Tournament {
 public:
  explicit Tournament(const TournamentSpec&);
  const std::string& name() const { return row_.name; }
  const Digest& key() const { return row_.key; }
  EloReport rate();
  // The row of the store with these ratings.
  TournamentRow row(const EloReport&) const;

 private:
  TournamentSpec spec_;
  EloOptions options_;
  Matches matches_;  // of the files; empty when a preset's counts are rated
  TournamentRow row_;
};

// Ratings as a table: rank, system, rating, order_sd, ci_lo, ci_hi, games, wins, losses, ties.
std::string print_ratings(const EloReport&);
std::string ratings_json(const EloReport&, const TournamentSpec&);

}  // namespace qlora
