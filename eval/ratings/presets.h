#pragma once
// Ways of rating that others have published, by name: which systems, which model, which settings. Some hold
// their tournament too, as a table of counts, so that it can be rated without its files; the counts are
// figures, taken from the released judgments, and the source is named with each.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "eval/ratings/elo.h"

namespace qlora {

// What happened between two systems, the first shown first.
struct PairCount {
  int first = 0, second = 0;  // indices into Preset::systems
  int first_wins = 0, second_wins = 0, ties = 0, invalid = 0;
};

struct Preset {
  std::string_view name, about, source;
  std::span<const std::string_view> systems = {};  // that take part; empty: all that the files have
  std::span<const PairCount> counts = {};          // empty: needs its files
  std::string_view model = "elo";                  // or bt
  double k = 4;                                    // online Elo
  std::string_view votes = "each";                 // how several votes of a file count: each | majority
  // The interval of the data where there are files: none | bootstrap | sandwich, over prompt | battle, and
  // the draws of a bootstrap (0: the default).
  std::string_view interval = "bootstrap", cluster = "prompt";
  int64_t draws = 0;
};

std::span<const Preset> presets();
// Throws Error(usage) with the nearest name.
const Preset& preset(const std::string& name);

// The preset's matches, without prompts. Throws Error(usage) when it has no counts of its own.
Matches matches_of(const Preset&);

// Rates them with the preset's model, which must be online Elo. K is the preset's unless `override_k`; a
// bootstrap is refused with Error(usage), because counts have no prompts; the report's note says so.
EloReport compute_preset(const Preset&, EloOptions options, bool override_k = false);
// What that note says.
std::string note_of(const Preset&);

}  // namespace qlora
