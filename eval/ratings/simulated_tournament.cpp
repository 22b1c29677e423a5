#include "eval/ratings/simulated_tournament.h"

#include <cmath>

#include "core/base/philox.h"
#include "eval/ratings/pair_model.h"

namespace qlora {

Matches simulated_tournament(const Simulation& s, uint64_t index) {
  Matches all;
  all.judges = {"simulated"};
  for (int32_t a = 0; a < s.systems; ++a) all.systems.push_back("s" + std::to_string(a));
  for (int32_t p = 0; p < s.prompts; ++p) all.prompts.push_back(std::to_string(p));
  all.invalid.resize(all.systems.size());
  all.matches.reserve(static_cast<size_t>(s.prompts) * static_cast<size_t>(s.systems * (s.systems - 1)));
  PhiloxStream random(mix_seed(0x70757a7a6c65, index));
  double t = std::log(s.tie_weight);
  std::vector<double> strength(all.systems.size());
  for (int32_t p = 0; p < s.prompts; ++p) {
    for (int32_t a = 0; a < s.systems; ++a) {
      double u = (random.next() + 0.5) * 0x1p-32, v = (random.next() + 0.5) * 0x1p-32;
      double z = std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
      strength[static_cast<size_t>(a)] = s.spread * (0.5 * (s.systems - 1) - a) + s.prompt_sd * z;
    }
    for (int32_t a = 0; a < s.systems; ++a)
      for (int32_t b = 0; b < s.systems; ++b) {
        if (a == b) continue;
        double d = strength[static_cast<size_t>(a)] - strength[static_cast<size_t>(b)] + s.position;
        PerOutcome chance = outcome_probabilities(RatingModel::davidson, d, t);
        double drawn = random.next() * 0x1p-32;
        Outcome outcome = drawn < chance[0]               ? Outcome::second_wins
                          : drawn < chance[0] + chance[1] ? Outcome::tie
                                                          : Outcome::first_wins;
        all.matches.push_back({a, b, outcome, p});
      }
  }
  all.rows = static_cast<int64_t>(all.matches.size());
  return all;
}

}  // namespace qlora
