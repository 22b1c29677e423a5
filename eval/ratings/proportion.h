#pragma once
// Intervals for a share of n, of which k were counted (k may be half-integral: ties as half a win).

#include <string>

namespace qlora {

struct ShareInterval {
  double lo = 0, hi = 1;
};

// Each for a level such as 0.95. REQUIRES: 0 <= k <= n, n > 0, 0 < level < 1.
// Wilson 1927: good at every n and share; what win matrices show.
ShareInterval wilson_interval(double k, double n, double level = 0.95);
// Clopper & Pearson 1934: covers at least the level, always; wide.
ShareInterval clopper_pearson_interval(double k, double n, double level = 0.95);
// Agresti & Coull 1998: the normal interval after adding z^2 / 2 to either side.
ShareInterval agresti_coull_interval(double k, double n, double level = 0.95);
// The textbook's share +- z sqrt(share (1 - share) / n): empty at 0 and 1; for comparison only.
ShareInterval normal_share_interval(double k, double n, double level = 0.95);

}  // namespace qlora
