#pragma once
// Agreement on categories, corrected for chance. Every statistic is a function of sums over items, so that a
// bootstrap adds up sums instead of reading the ratings again.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace qlora {

// A square table of weights between categories 0..size-1, row-major: confusions of two raters (rows: the one,
// columns: the other), or the coincidences of any number of raters.
struct CategoryTable {
  explicit CategoryTable(int categories)
      : size(categories), cells(static_cast<size_t>(categories) * static_cast<size_t>(categories)) {}
  double& at(int row, int column) { return cells[static_cast<size_t>(row * size + column)]; }
  double at(int row, int column) const { return cells[static_cast<size_t>(row * size + column)]; }
  void add(const CategoryTable& other, double weight);
  double total() const;
  int size;
  std::vector<double> cells;
};

// The part of pairs that agree; absent for an empty table.
std::optional<double> raw_agreement(const CategoryTable& confusions);

// Disagreement of categories i and j: 1 unless equal; |i - j|; (i - j)^2.
enum class KappaWeights { none, linear, quadratic };

// Cohen (1960), weighted: Cohen (1968). 1 - observed / expected disagreement; absent when none is expected
// (both raters use one and the same category alone).
std::optional<double> cohen_kappa(const CategoryTable& confusions, KappaWeights = KappaWeights::none);

// Sums for Fleiss' kappa (1971) of items that the same number of raters (2 or more) have put into categories.
struct FleissSums {
  explicit FleissSums(int categories) : totals(static_cast<size_t>(categories)) {}
  // counts[j]: raters of one item who chose category j.
  void add(std::span<const int> counts);
  void add(const FleissSums& other, double weight);
  double items = 0;
  double agreement = 0;        // sum over items of the part of its pairs of raters that agree
  std::vector<double> totals;  // votes a category
};
// Absent without items, and when all votes are in one category.
std::optional<double> fleiss_kappa(const FleissSums&);

// Adds one unit's ratings (category indices; who did not rate is left out) to Krippendorff's coincidences:
// each ordered pair of ratings counts 1 / (ratings - 1). A unit with fewer than two ratings says nothing.
void add_coincidences(CategoryTable&, std::span<const int> ratings);

// Squared differences: 1 unless equal; (sum of ratings from one category to the other, the ends by half)^2;
// (difference of the categories' values)^2.
enum class AlphaDistance { nominal, ordinal, interval };

// Krippendorff's alpha (2004): 1 - observed / expected disagreement, from coincidences. `values`: of the
// categories, ascending (used by `interval`). Absent when no disagreement is expected.
std::optional<double> krippendorff_alpha(const CategoryTable& coincidences, std::span<const double> values,
                                         AlphaDistance);

}  // namespace qlora
