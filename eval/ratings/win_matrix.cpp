#include "eval/ratings/win_matrix.h"

#include <algorithm>
#include <numeric>

#include "eval/ratings/report.h"

namespace qlora {

double WinCell::rate() const {
  return (static_cast<double>(wins) + 0.5 * static_cast<double>(ties)) / static_cast<double>(games());
}

double WinCell::net() const {
  return static_cast<double>(wins - losses) / static_cast<double>(games());
}

double WinCell::decisive() const {
  return static_cast<double>(wins) / static_cast<double>(wins + losses);
}

ShareInterval WinCell::wilson() const {
  return wilson_interval(static_cast<double>(wins) + 0.5 * static_cast<double>(ties),
                         static_cast<double>(games()));
}

WinMatrix win_matrix(const Matches& all) {
  check_matches(all.systems, all.matches);
  size_t n = all.systems.size();
  std::vector<std::vector<WinCell>> cells(n, std::vector<WinCell>(n));
  for (const Match& m : all.matches) {
    WinCell& there = cells[static_cast<size_t>(m.first)][static_cast<size_t>(m.second)];
    WinCell& back = cells[static_cast<size_t>(m.second)][static_cast<size_t>(m.first)];
    if (m.outcome == Outcome::tie) {
      ++there.ties;
      ++back.ties;
    } else {
      bool first_wins = m.outcome == Outcome::first_wins;
      ++(first_wins ? there.wins : there.losses);
      ++(first_wins ? back.losses : back.wins);
    }
  }
  std::vector<std::optional<double>> mean(n);
  for (size_t a = 0; a < n; ++a) {
    double sum = 0;
    int opponents = 0;
    for (const WinCell& cell : cells[a]) {
      if (cell.games() == 0) continue;
      sum += cell.rate();
      ++opponents;
    }
    if (opponents > 0) mean[a] = sum / opponents;
  }
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return mean[a] != mean[b] ? mean[a] > mean[b] : all.systems[a] < all.systems[b];
  });
  WinMatrix out;
  for (size_t a : order) {
    out.systems.push_back(all.systems[a]);
    out.mean_rate.push_back(mean[a]);
    out.cells.emplace_back();
    for (size_t b : order) out.cells.back().push_back(cells[a][b]);
  }
  return out;
}

}  // namespace qlora
