#pragma once
// When strengths exist at all. The likelihood of a model of pair_model.h has a finite maximum only if the
// graph with an edge from each winner to each loser (a tie is an edge both ways) is strongly connected (Ford
// 1957): however the systems are parted in two groups, each group has taken something from the other.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/ratings/match.h"

namespace qlora {

class WinGraph {
 public:
  explicit WinGraph(size_t systems) : systems_(systems), edge_(systems * systems) {}
  void add(int32_t first, int32_t second, Outcome);
  // Anchored systems stand at fixed distances, as if each had beaten the others.
  void tie_together(std::span<const int32_t> systems);
  bool strongly_connected() const;
  // The strongly connected groups; one stands before another that it has won against.
  std::vector<std::vector<int32_t>> groups() const;

 private:
  // 1 for what can be reached from `start`, along the edges or against them.
  std::vector<uint8_t> reached(size_t start, bool forward) const;
  size_t systems_;
  std::vector<uint8_t> edge_;  // [winner, loser]
};

// Throws Error(data) that says which systems have no match, no win, no loss, or which groups stand apart.
void check_win_graph(std::span<const std::string> systems, std::span<const Match>,
                     std::span<const int32_t> anchored);

}  // namespace qlora
