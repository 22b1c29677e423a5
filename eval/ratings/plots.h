#pragma once
// Figures as SVG text, complete documents of their own: no script, no font files, readable in black and
// white.

#include <string>

#include "eval/ratings/report.h"
#include "eval/ratings/win_matrix.h"

namespace qlora {

// One line a system, best first: the rating, its 95% interval where there is one, and the figures beside it.
std::string ratings_svg(const RatingReport&, const std::string& title);

// Row against column, as a share of wins with half of the ties; white is one half, the darker the further
// away (blue for wins, orange for losses).
std::string win_rates_svg(const WinMatrix&, const std::string& title);

}  // namespace qlora
