#include "eval/agreement/kappa.h"

#include <cmath>
#include <numeric>

#include "core/base/check.h"

namespace qlora {

namespace {

std::vector<double> row_sums(const CategoryTable& table) {
  std::vector<double> sums(static_cast<size_t>(table.size));
  for (int i = 0; i < table.size; ++i)
    for (int j = 0; j < table.size; ++j) sums[static_cast<size_t>(i)] += table.at(i, j);
  return sums;
}

std::vector<double> column_sums(const CategoryTable& table) {
  std::vector<double> sums(static_cast<size_t>(table.size));
  for (int i = 0; i < table.size; ++i)
    for (int j = 0; j < table.size; ++j) sums[static_cast<size_t>(j)] += table.at(i, j);
  return sums;
}

double disagreement(int i, int j, KappaWeights weights) {
  double apart = std::abs(i - j);
  return weights == KappaWeights::none ? (i != j) : weights == KappaWeights::linear ? apart : apart * apart;
}

double squared_difference(int i, int j, std::span<const double> totals, std::span<const double> values,
                          AlphaDistance distance) {
  if (i == j) return 0;
  if (distance == AlphaDistance::nominal) return 1;
  auto from = static_cast<size_t>(std::min(i, j)), to = static_cast<size_t>(std::max(i, j));
  double apart = values[to] - values[from];
  if (distance == AlphaDistance::ordinal)
    apart = std::accumulate(totals.begin() + static_cast<std::ptrdiff_t>(from),
                            totals.begin() + static_cast<std::ptrdiff_t>(to) + 1, 0.0) -
            (totals[from] + totals[to]) / 2;
  return apart * apart;
}

}  // namespace

void CategoryTable::add(const CategoryTable& other, double weight) {
  for (size_t i = 0; i < cells.size(); ++i) cells[i] += weight * other.cells[i];
}

double CategoryTable::total() const {
  return std::accumulate(cells.begin(), cells.end(), 0.0);
}

std::optional<double> raw_agreement(const CategoryTable& confusions) {
  double total = confusions.total(), agreed = 0;
  if (total == 0) return std::nullopt;
  for (int i = 0; i < confusions.size; ++i) agreed += confusions.at(i, i);
  return agreed / total;
}

std::optional<double> cohen_kappa(const CategoryTable& confusions, KappaWeights weights) {
  std::vector<double> rows = row_sums(confusions), columns = column_sums(confusions);
  double total = confusions.total(), observed = 0, expected = 0;
  for (int i = 0; i < confusions.size; ++i)
    for (int j = 0; j < confusions.size; ++j) {
      double apart = disagreement(i, j, weights);
      observed += apart * confusions.at(i, j);
      expected += apart * rows[static_cast<size_t>(i)] * columns[static_cast<size_t>(j)];
    }
  if (total == 0 || expected == 0) return std::nullopt;
  return 1 - observed * total / expected;
}

void FleissSums::add(std::span<const int> counts) {
  QLORA_CHECK(counts.size() == totals.size(), failure, "an item with {} categories instead of {}",
              counts.size(), totals.size());
  double raters = 0, pairs = 0;
  for (size_t j = 0; j < counts.size(); ++j) {
    raters += counts[j];
    pairs += static_cast<double>(counts[j]) * (counts[j] - 1);
    totals[j] += counts[j];
  }
  QLORA_CHECK(raters >= 2, failure, "an item with {} raters: agreement needs two", raters);
  agreement += pairs / (raters * (raters - 1));
  items += 1;
}

void FleissSums::add(const FleissSums& other, double weight) {
  items += weight * other.items;
  agreement += weight * other.agreement;
  for (size_t j = 0; j < totals.size(); ++j) totals[j] += weight * other.totals[j];
}

std::optional<double> fleiss_kappa(const FleissSums& sums) {
  double votes = std::accumulate(sums.totals.begin(), sums.totals.end(), 0.0), chance = 0;
  if (sums.items == 0 || votes == 0) return std::nullopt;
  bool one_category = false;
  for (double total : sums.totals) {
    chance += (total / votes) * (total / votes);
    one_category = one_category || total == votes;
  }
  if (one_category) return std::nullopt;
  return (sums.agreement / sums.items - chance) / (1 - chance);
}

void add_coincidences(CategoryTable& table, std::span<const int> ratings) {
  if (ratings.size() < 2) return;
  double weight = 1.0 / static_cast<double>(ratings.size() - 1);
  for (size_t i = 0; i < ratings.size(); ++i)
    for (size_t j = 0; j < ratings.size(); ++j)
      if (i != j) table.at(ratings[i], ratings[j]) += weight;
}

std::optional<double> krippendorff_alpha(const CategoryTable& coincidences, std::span<const double> values,
                                         AlphaDistance distance) {
  QLORA_CHECK(static_cast<int>(values.size()) == coincidences.size, failure, "{} values of {} categories",
              values.size(), coincidences.size);
  std::vector<double> totals = row_sums(coincidences);
  double pairable = coincidences.total(), observed = 0, expected = 0;
  for (int i = 0; i < coincidences.size; ++i)
    for (int j = 0; j < coincidences.size; ++j) {
      double apart = squared_difference(i, j, totals, values, distance);
      observed += coincidences.at(i, j) * apart;
      expected += totals[static_cast<size_t>(i)] * totals[static_cast<size_t>(j)] * apart;
    }
  if (expected == 0) return std::nullopt;
  return 1 - (pairable - 1) * observed / expected;
}

}  // namespace qlora
