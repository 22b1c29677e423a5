#pragma once
// Tournaments with a known way of coming about, to try estimators on.

#include <cstdint>

#include "eval/ratings/match.h"

namespace qlora {

// Every two systems meet on every prompt in both orders. On prompt p, system s has the strength
//   spread * (middle - s) + prompt_sd * z[p][s],   z standard normal,
// so that a prompt which suits a system suits it in all of its matches: matches of one prompt are not
// independent. A tie is what Davidson's model says of the difference.
struct Simulation {
  int32_t systems = 8, prompts = 80;
  double spread = 0.25;     // natural units between neighbours
  double prompt_sd = 0.8;   // of a system's strength from prompt to prompt
  double position = 0.5;    // what being shown first is worth
  double tie_weight = 0.3;  // Davidson's nu
};

// Tournament number `index` of its kind; systems are called s0 (the best), s1, ...
Matches simulated_tournament(const Simulation&, uint64_t index);

}  // namespace qlora
