#include "eval/agreement/correlation.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace qlora {

std::vector<double> average_ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    double rank = static_cast<double>(begin + 1 + end) / 2;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = rank;
  }
  return ranks;
}

std::optional<double> pearson_correlation(std::span<const double> x, std::span<const double> y) {
  if (x.size() < 2) return std::nullopt;
  auto n = static_cast<double>(x.size());
  double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / n,
         mean_y = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    double dx = x[i] - mean_x, dy = y[i] - mean_y;
    xx += dx * dx;
    yy += dy * dy;
    xy += dx * dy;
  }
  if (xx == 0 || yy == 0) return std::nullopt;
  return std::clamp(xy / (std::sqrt(xx) * std::sqrt(yy)), -1.0, 1.0);
}

std::optional<double> spearman_rho(std::span<const double> x, std::span<const double> y) {
  return pearson_correlation(average_ranks(x), average_ranks(y));
}

std::optional<double> kendall_tau_b(std::span<const double> x, std::span<const double> y) {
  int64_t balance = 0, untied_x = 0, untied_y = 0;
  for (size_t i = 0; i < x.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      int in_x = (x[i] > x[j]) - (x[i] < x[j]), in_y = (y[i] > y[j]) - (y[i] < y[j]);
      balance += in_x * in_y;
      untied_x += in_x != 0;
      untied_y += in_y != 0;
    }
  if (untied_x == 0 || untied_y == 0) return std::nullopt;
  return static_cast<double>(balance) /
         (std::sqrt(static_cast<double>(untied_x)) * std::sqrt(static_cast<double>(untied_y)));
}

}  // namespace qlora
