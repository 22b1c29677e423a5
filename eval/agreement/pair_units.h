#pragma once
// Votes laid side by side: for one item and two systems, what every judge said in either order of showing.

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "eval/judge/judgments.h"

namespace qlora {

// Of the two systems of a unit, in alphabetical order: 0 is a, 1 is b.
struct PairUnit {
  int32_t cluster = 0;  // index of the item: what a bootstrap draws
  std::string item, a, b;
  int turn = 1;
  // Verdicts by [judge][shown first: a, b, or unknown], as they were given: first_wins means the one shown
  // first (a, where it is unknown). Several: by several raters. Invalid ones are among them.
  std::vector<std::array<std::vector<Verdict>, 3>> votes;
};

struct PairUnits {
  std::vector<std::string> judges, items;  // in order of first appearance
  std::vector<PairUnit> units;
};

// The verdicts (points too: the larger wins) of votes on two answers. Throws Error(data) when there is none.
PairUnits pair_units(std::span<const JudgmentFile>);

// The verdict with the two answers changing places.
Verdict swapped(Verdict);

// As a category, in order: 0 first wins, 1 tie (or both bad), 2 second wins. REQUIRES: valid.
int category_of(Verdict);
inline constexpr int kCategories = 3;
inline constexpr std::array<double, 3> kCategoryValues = {0, 0.5, 1};

}  // namespace qlora
