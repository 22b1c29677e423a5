#pragma once
// Who won against whom, and how often: the form of the QLoRA paper's table of pairwise results.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eval/ratings/match.h"
#include "eval/ratings/proportion.h"

namespace qlora {

// One system against another, whoever was shown first.
struct WinCell {
  int64_t wins = 0, losses = 0, ties = 0;
  int64_t games() const { return wins + losses + ties; }
  // The four figures of the literature. REQUIRES: games() > 0, for `decisive` a win or a loss.
  double rate() const;           // (wins + ties / 2) / games
  double net() const;            // (wins - losses) / games
  double decisive() const;       // wins / (wins + losses): ties left out, as FastChat's heat map does
  ShareInterval wilson() const;  // 95%, of rate(), as if matches were independent of each other
};

struct WinMatrix {
  std::vector<std::string> systems;         // by mean win rate, best first; equal ones by name
  std::vector<std::vector<WinCell>> cells;  // [row][column]: the row's system against the column's
  // (wins + ties / 2) / games over all opponents, each with the same weight; none for a system without a
  // match.
  std::vector<std::optional<double>> mean_rate;
};

WinMatrix win_matrix(const Matches&);

}  // namespace qlora
