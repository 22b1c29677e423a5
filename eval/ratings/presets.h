#pragma once
// Published tournaments as tables of counts, so that they can be rated again without their files. The counts
// are figures, taken from the released judgments; the source is named with each.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/ratings/elo.h"

namespace qlora {

// What happened between two systems, the first shown first.
struct PairCount {
  int first = 0, second = 0;  // indices into Preset::systems
  int first_wins = 0, second_wins = 0, ties = 0, invalid = 0;
};

struct Preset {
  std::string_view name, about, source;
  std::span<const std::string_view> systems;
  std::span<const PairCount> counts;
  double k = 4;
};

std::span<const Preset> presets();
// Throws Error(usage) with the nearest name.
const Preset& preset(const std::string& name);

// The preset's matches (without prompts).
std::vector<Match> matches_of(const Preset&);

// Rates it. K is the preset's unless `options.k` is set by the caller through `override_k`; a bootstrap is
// refused with Error(usage), because counts have no prompts; the report's note says so.
EloReport compute_preset(const Preset&, EloOptions options, bool override_k = false);

}  // namespace qlora
