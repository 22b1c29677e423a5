#include "core/base/names.h"

#include <fmt/format.h>

#include <algorithm>

namespace qlora {

int edit_distance(std::string_view a, std::string_view b) {
  const size_t n = a.size(), m = b.size();
  std::vector<std::vector<int>> d(n + 1, std::vector<int>(m + 1));
  for (size_t i = 0; i <= n; ++i) d[i][0] = static_cast<int>(i);
  for (size_t j = 0; j <= m; ++j) d[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= n; ++i)
    for (size_t j = 1; j <= m; ++j) {
      int change = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[n][m];
}

std::string nearest(std::string_view name, std::span<const std::string> known) {
  std::string best;
  int best_distance = static_cast<int>(std::max<size_t>(2, name.size() / 3)) + 1;
  for (const std::string& k : known) {
    int d = edit_distance(name, k);
    if (d < best_distance) {
      best_distance = d;
      best = k;
    }
  }
  return best;
}

std::string unknown_name(std::string_view kind, std::string_view name, std::span<const std::string> known) {
  std::string near = nearest(name, known);
  if (!near.empty()) return fmt::format("unknown {} `{}`; did you mean `{}`?", kind, name, near);
  return fmt::format("unknown {} `{}`; known: {}", kind, name, fmt::join(known, ", "));
}

}  // namespace qlora
