#pragma once
// Tournaments of a sweep file and of `qlora elo`: judgment files in, ratings out.

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/judge/known_systems.h"
#include "eval/ratings/strengths.h"
#include "experiments/evals.h"
#include "results/records.h"

namespace qlora {

// The matches that a specification names: of its files, or of its preset's counts.
struct TournamentMatches {
  std::vector<JudgmentFile> files;  // empty: a preset's counts
  Matches matches;
  std::string note;  // what a reader must know: where counts come from, whom a preset leaves out
};
// Throws like its parts (judgments.h, presets.h, answer_lengths.h).
TournamentMatches load_matches(const TournamentSpec&);
// The same of votes that were read already; checks their claims.
TournamentMatches load_matches(const TournamentSpec&, std::vector<JudgmentFile> votes);

// By one of two ways: online Elo, or a model with a likelihood.
struct TournamentRatings {
  std::optional<EloReport> elo;
  std::optional<ModelReport> fitted;
  const RatingReport& report() const;
  std::string model() const;  // elo, bt, rao-kupper, davidson
};

// Reads what the specification names, and checks it. The key follows the name, the method, its
// parameters and the files' content. `rate` (costly) gives the ratings.
class Tournament {
 public:
  explicit Tournament(const TournamentSpec&);
  // The same of votes that were read already: those of a sweep's own judge, or of the store.
  Tournament(const TournamentSpec&, std::vector<JudgmentFile> votes);
  const std::string& name() const { return row_.name; }
  const Digest& key() const { return row_.key; }
  const Matches& matches() const { return loaded_.matches; }
  TournamentRatings rate() const;
  // The row of the store with these ratings.
  TournamentRow row(const TournamentRatings&) const;

 private:
  Tournament(const TournamentSpec&, TournamentMatches);
  TournamentMatches loaded_;
  std::optional<EloOptions> elo_;  // one of the two
  std::optional<ModelOptions> fitted_;
  TournamentRow row_;
};

// Throws Error(usage) for options that do not go together, as the constructor would.
void check_options(const TournamentSpec&);
// Throws Error(usage) for a system or an anchor's system that is none of these, naming where it stands. For
// votes that are still to come: those that are read are checked by the constructor.
void check_named_systems(const TournamentSpec&, const KnownSystems&);

// Those of a sweep whose votes are files, by their place in the sweep; mistakes in files are found here.
std::map<size_t, Tournament> read_tournaments_of(std::span<const TournamentSpec>);

// The options of a model with a likelihood, of which the specification and its preset say one.
ModelOptions model_options(const TournamentSpec&);

// Ratings as a table for people, and as JSON.
std::string print_ratings(const TournamentRatings&);
std::string ratings_json(const TournamentRatings&, const TournamentSpec&);

}  // namespace qlora
