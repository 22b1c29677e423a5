#include "eval/agreement/bias.h"

#include <array>

#include "eval/agreement/kappa.h"
#include "eval/agreement/pair_units.h"

namespace qlora {

namespace {

// What one cluster (an item) adds.
struct Sums {
  std::array<double, 3> shown{};  // first wins, tie, second wins
  // Verdicts of the pair's system a: rows when it was shown first, columns when it was shown second.
  CategoryTable swaps{kCategories};

  void add(const Sums& other, double weight) {
    for (size_t i = 0; i < shown.size(); ++i) shown[i] += weight * other.shown[i];
    swaps.add(other.swaps, weight);
  }
};

std::optional<double> part(double count, double all) {
  return all > 0 ? std::optional<double>(count / all) : std::nullopt;
}

// The view of system b added: its first rater is a's second, and its win is a's loss.
CategoryTable both_views(const CategoryTable& table) {
  CategoryTable both(table.size);
  int last = table.size - 1;
  for (int i = 0; i < table.size; ++i)
    for (int j = 0; j < table.size; ++j) both.at(i, j) = table.at(i, j) + table.at(last - j, last - i);
  return both;
}

// The raters of Krippendorff's alpha are exchangeable: each pair counts in both directions.
CategoryTable symmetric(const CategoryTable& table) {
  CategoryTable both(table.size);
  for (int i = 0; i < table.size; ++i)
    for (int j = 0; j < table.size; ++j) both.at(i, j) = table.at(i, j) + table.at(j, i);
  return both;
}

std::vector<std::optional<double>> statistics(const Sums& sums) {
  const CategoryTable& t = sums.swaps;
  double shown = sums.shown[0] + sums.shown[1] + sums.shown[2], swaps = t.total();
  // a wins when shown first and loses when shown second: the judge followed the first place.
  double followed_first = t.at(0, 2), followed_second = t.at(2, 0);
  double one_tie = t.at(0, 1) + t.at(1, 0) + t.at(1, 2) + t.at(2, 1);
  const CategoryTable views = both_views(t), pairs = symmetric(views);
  return {part(sums.shown[0], shown),
          part(sums.shown[2], shown),
          part(sums.shown[1], shown),
          part(t.at(0, 0) + t.at(1, 1) + t.at(2, 2), swaps),
          part(followed_first, swaps),
          part(followed_second, swaps),
          part(one_tie, swaps),
          cohen_kappa(views),
          cohen_kappa(views, KappaWeights::quadratic),
          krippendorff_alpha(pairs, kCategoryValues, AlphaDistance::nominal),
          krippendorff_alpha(pairs, kCategoryValues, AlphaDistance::interval)};
}

void add_unit(const PairUnit& unit, size_t judge, Sums& sums, JudgeBias& bias) {
  const auto& orders = unit.votes[judge];
  bias.order_unknown += static_cast<int64_t>(orders[2].size());
  for (int order : {0, 1})
    for (Verdict verdict : orders[static_cast<size_t>(order)]) {
      ++bias.votes;
      if (verdict == Verdict::invalid)
        ++bias.invalid;
      else
        sums.shown[static_cast<size_t>(category_of(verdict))] += 1;
    }
  Verdict a_first = majority_of(orders[0]), b_first = swapped(majority_of(orders[1]));
  if (a_first == Verdict::invalid || b_first == Verdict::invalid) return;
  ++bias.swaps;
  sums.swaps.at(category_of(a_first), category_of(b_first)) += 1;
}

JudgeBias bias_of(const PairUnits& all, size_t judge, const BootstrapOptions& options) {
  JudgeBias bias;
  bias.judge = all.judges[judge];
  std::vector<Sums> clusters(all.items.size());
  for (const PairUnit& unit : all.units)
    add_unit(unit, judge, clusters[static_cast<size_t>(unit.cluster)], bias);
  std::vector<Estimate> estimates = cluster_bootstrap(static_cast<int64_t>(clusters.size()), options,
                                                      [&](std::span<const int32_t> weights) {
                                                        Sums sums;
                                                        for (size_t c = 0; c < clusters.size(); ++c)
                                                          if (weights[c] != 0)
                                                            sums.add(clusters[c], weights[c]);
                                                        return statistics(sums);
                                                      });
  size_t next = 0;
  for (Estimate* estimate :
       {&bias.first, &bias.second, &bias.tie, &bias.consistent, &bias.first_biased, &bias.second_biased,
        &bias.one_tie, &bias.kappa, &bias.kappa_quadratic, &bias.alpha_nominal, &bias.alpha_interval})
    *estimate = estimates[next++];
  return bias;
}

}  // namespace

std::vector<JudgeBias> judge_bias(std::span<const JudgmentFile> files, const BootstrapOptions& options) {
  const PairUnits all = pair_units(files);
  std::vector<JudgeBias> result;
  for (size_t judge = 0; judge < all.judges.size(); ++judge) result.push_back(bias_of(all, judge, options));
  return result;
}

}  // namespace qlora
