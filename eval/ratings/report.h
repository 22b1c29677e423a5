#pragma once
// What every rating system reports of a system and of a tournament, and what is computed alike for all of
// them.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/ratings/match.h"

namespace qlora {

struct Rating {
  std::string system;
  double rating = 0;
  double order_sd = 0;                   // online Elo: standard deviation over orders of the matches; else 0
  double mc_error = 0;                   // online Elo: order_sd / sqrt(orders), of the mean; else 0
  std::optional<double> se;              // of the data, by the report's ci_method
  std::optional<double> ci_lo, ci_hi;    // 95%
  std::optional<int> rank_lo, rank_hi;   // 2.5% and 97.5% of the ranks that draws of the data give
  std::vector<double> rank_probability;  // of rank 1, 2, ...; sums to 1; empty without draws
  int64_t games = 0, wins = 0, losses = 0, ties = 0;
  int64_t invalid = 0;  // votes without a verdict, dropped before; set by the caller
};

struct RatingReport {
  std::vector<Rating> ratings;  // best first; equal ratings by name
  int64_t matches = 0, prompts = 0;
  std::string ci_method;  // "95%, prompts drawn again 1000 times", or empty
  std::string note;       // for the reader, such as why there is no interval; may be empty
  // [a][b], in the order of `ratings`: in what part of the draws a is above b. Empty without draws.
  std::vector<std::vector<double>> above;
};

// What is drawn again, or summed, as one: all judgments of a prompt stand or fall together, because a prompt
// that suits a system suits it in every match. Matches as units of their own give intervals that are too
// narrow (by a third on the Vicuna prompts); they are there to compare with programs that do it so.
enum class Cluster { prompt, match };
Cluster cluster_from(const std::string& name);  // prompt | battle; throws Error(usage)

// The number of each match's cluster, 0, 1, ... without gaps. REQUIRES for prompts: all known, see
// check_clusters.
struct Clusters {
  std::vector<int32_t> of_match;
  int32_t count = 0;
};
Clusters clusters_of(std::span<const Match>, Cluster);
// Throws Error(usage) when prompts are asked for and a match has none, or when there are fewer than two.
void check_clusters(std::span<const Match>, Cluster);

// Throws Error(data) when there is no match, or one names a system out of range or against itself.
void check_matches(std::span<const std::string> systems, std::span<const Match>);
// Names, games, wins, losses and ties; in the order of `systems`.
std::vector<Rating> count_games(std::span<const std::string> systems, std::span<const Match>);
int64_t count_prompts(std::span<const Match>);

// Standard errors, ranks and `above` from draws of the ratings [draw][system], and percentile intervals where
// `intervals`. REQUIRES: `ratings` in the order of the draws' systems, at least one draw.
void add_draws(RatingReport&, const std::vector<std::vector<double>>& draws, bool intervals);
void sort_best_first(RatingReport&);

// A quantile by linear interpolation between order statistics. REQUIRES: sorted, not empty.
double quantile_of_sorted(const std::vector<double>& sorted, double q);

}  // namespace qlora
