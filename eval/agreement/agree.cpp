#include "eval/agreement/agree.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "eval/agreement/kappa.h"
#include "eval/agreement/pair_units.h"
#include "eval/metrics/correlation.h"

namespace qlora {

namespace {

using Values = std::vector<std::optional<double>>;

// Sums over items of one cluster. Fleiss' sums hold items of one number of raters alone.
struct Sums {
  CategoryTable confusions{kCategories}, coincidences{kCategories};
  FleissSums fleiss{kCategories};

  void add(const Sums& other, double weight) {
    confusions.add(other.confusions, weight);
    coincidences.add(other.coincidences, weight);
    fleiss.add(other.fleiss, weight);
  }
  void add_raters(std::span<const int> categories) {
    std::array<int, kCategories> counts{};
    for (int category : categories) ++counts[static_cast<size_t>(category)];
    fleiss.add(counts);
    add_coincidences(coincidences, categories);
  }
};

void push_alphas(const CategoryTable& coincidences, Values& values) {
  for (AlphaDistance distance : {AlphaDistance::nominal, AlphaDistance::ordinal, AlphaDistance::interval})
    values.push_back(krippendorff_alpha(coincidences, kCategoryValues, distance));
}

std::vector<Estimate> estimate(std::span<const Sums> clusters, const BootstrapOptions& options,
                               const std::function<Values(const Sums&)>& statistics) {
  return cluster_bootstrap(static_cast<int64_t>(clusters.size()), options,
                           [&](std::span<const int32_t> weights) {
                             Sums sums;
                             for (size_t c = 0; c < clusters.size(); ++c)
                               if (weights[c] != 0) sums.add(clusters[c], weights[c]);
                             return statistics(sums);
                           });
}

void take(std::span<const Estimate> estimates, std::initializer_list<Estimate*> places) {
  size_t next = 0;
  for (Estimate* place : places) *place = estimates[next++];
}

// ---- raters of one judge

std::optional<RaterAgreement> among_raters(const PairUnits& all, size_t judge,
                                           const BootstrapOptions& options) {
  RaterAgreement result;
  result.judge = all.judges[judge];
  std::vector<Sums> clusters(all.items.size());
  for (const PairUnit& unit : all.units)
    for (const std::vector<Verdict>& verdicts : unit.votes[judge]) {
      std::vector<int> categories;
      for (Verdict verdict : verdicts) {
        if (verdict == Verdict::invalid)
          ++result.invalid;
        else
          categories.push_back(category_of(verdict));
      }
      result.single += categories.size() == 1;
      if (categories.size() < 2) continue;
      auto raters = static_cast<int64_t>(categories.size());
      result.raters = result.items == 0 || result.raters == raters ? raters : 0;
      ++result.items;
      result.votes += raters;
      clusters[static_cast<size_t>(unit.cluster)].add_raters(categories);
    }
  if (result.items == 0) return std::nullopt;
  std::vector<Estimate> estimates = estimate(clusters, options, [&](const Sums& sums) {
    Values values;
    bool any = sums.fleiss.items > 0;
    values.push_back(any ? std::optional<double>(sums.fleiss.agreement / sums.fleiss.items) : std::nullopt);
    values.push_back(result.raters != 0 ? fleiss_kappa(sums.fleiss) : std::nullopt);
    push_alphas(sums.coincidences, values);
    return values;
  });
  take(estimates,
       {&result.raw, &result.fleiss, &result.alpha_nominal, &result.alpha_ordinal, &result.alpha_interval});
  return result;
}

// ---- two judges on the same answers

struct TwoVerdicts {
  Verdict one, other;
};
enum class Alignment { same, opposite, unknown };

// The verdicts of two judges on one unit, from the view of whoever was shown first to `one`.
std::vector<TwoVerdicts> align(const PairUnit& unit, size_t one, size_t other, Alignment alignment) {
  const auto &ours = unit.votes[one], &theirs = unit.votes[other];
  std::vector<TwoVerdicts> found;
  if (alignment == Alignment::unknown) {
    if (ours[2].empty() && theirs[2].empty()) return {};
    auto together = [](const std::array<std::vector<Verdict>, 3>& orders) {
      std::vector<Verdict> votes = orders[0];
      for (Verdict verdict : orders[1]) votes.push_back(swapped(verdict));
      votes.insert(votes.end(), orders[2].begin(), orders[2].end());
      return votes;
    };
    const std::vector<Verdict> left = together(ours), right = together(theirs);
    if (!left.empty() && !right.empty()) found.push_back({majority_of(left), majority_of(right)});
    return found;
  }
  for (size_t order : {0, 1}) {
    const auto& votes = theirs[alignment == Alignment::same ? order : 1 - order];
    if (ours[order].empty() || votes.empty()) continue;
    Verdict verdict = majority_of(votes);
    found.push_back({majority_of(ours[order]), alignment == Alignment::same ? verdict : swapped(verdict)});
  }
  return found;
}

std::optional<JudgeAgreement> between(const PairUnits& all, size_t one, size_t other, Alignment alignment,
                                      const BootstrapOptions& options) {
  static constexpr std::array<const char*, 3> kNames = {"same", "opposite", "unknown"};
  JudgeAgreement result;
  result.judge = all.judges[one];
  result.other = all.judges[other];
  result.order = kNames[static_cast<size_t>(alignment)];
  std::vector<Sums> clusters(all.items.size());
  for (const PairUnit& unit : all.units)
    for (const TwoVerdicts& verdicts : align(unit, one, other, alignment)) {
      if (verdicts.one == Verdict::invalid || verdicts.other == Verdict::invalid) {
        ++result.invalid;
        continue;
      }
      ++result.items;
      Sums& sums = clusters[static_cast<size_t>(unit.cluster)];
      std::array<int, 2> categories = {category_of(verdicts.one), category_of(verdicts.other)};
      sums.confusions.at(categories[0], categories[1]) += 1;
      sums.add_raters(categories);
    }
  if (result.items == 0) return std::nullopt;
  std::vector<Estimate> estimates = estimate(clusters, options, [](const Sums& sums) {
    Values values = {raw_agreement(sums.confusions), cohen_kappa(sums.confusions),
                     cohen_kappa(sums.confusions, KappaWeights::linear),
                     cohen_kappa(sums.confusions, KappaWeights::quadratic), fleiss_kappa(sums.fleiss)};
    push_alphas(sums.coincidences, values);
    return values;
  });
  take(estimates, {&result.raw, &result.kappa, &result.kappa_linear, &result.kappa_quadratic, &result.fleiss,
                   &result.alpha_nominal, &result.alpha_ordinal, &result.alpha_interval});
  return result;
}

// ---- two judges on the order of systems

// Points and games of every system, by cluster: [cluster][system].
using Standing = std::vector<std::vector<std::array<double, 2>>>;

Standing standing(const PairUnits& all, size_t judge, const std::map<std::string, size_t>& systems) {
  Standing result(all.items.size(), std::vector<std::array<double, 2>>(systems.size()));
  auto count = [&](const PairUnit& unit, Verdict verdict) {  // of unit.a's view
    if (verdict == Verdict::invalid) return;
    auto& cluster = result[static_cast<size_t>(unit.cluster)];
    double points = 1 - kCategoryValues[static_cast<size_t>(category_of(verdict))];
    auto &a = cluster[systems.at(unit.a)], &b = cluster[systems.at(unit.b)];
    a[0] += points;
    b[0] += 1 - points;
    a[1] += 1;
    b[1] += 1;
  };
  for (const PairUnit& unit : all.units) {
    const auto& orders = unit.votes[judge];
    count(unit, majority_of(orders[0]));
    count(unit, swapped(majority_of(orders[1])));
    count(unit, majority_of(orders[2]));
  }
  return result;
}

// Part of the points that each system has won; absent without games.
Values parts_won(const Standing& standing, std::span<const int32_t> weights) {
  std::vector<std::array<double, 2>> sums(standing.front().size());
  for (size_t c = 0; c < standing.size(); ++c)
    for (size_t s = 0; s < sums.size(); ++s)
      for (size_t k : {0, 1}) sums[s][k] += weights[c] * standing[c][s][k];
  Values parts;
  for (const auto& [points, games] : sums)
    parts.push_back(games > 0 ? std::optional<double>(points / games) : std::nullopt);
  return parts;
}

std::optional<SystemAgreement> on_systems(const PairUnits& all, size_t one, size_t other,
                                          const BootstrapOptions& options) {
  std::map<std::string, size_t> systems;
  for (const PairUnit& unit : all.units)
    for (const std::string& name : {unit.a, unit.b}) systems.try_emplace(name, systems.size());
  const Standing ours = standing(all, one, systems), theirs = standing(all, other, systems);
  auto common = [&](std::span<const int32_t> weights) {
    std::array<std::vector<double>, 2> lists;
    Values left = parts_won(ours, weights), right = parts_won(theirs, weights);
    for (size_t s = 0; s < left.size(); ++s)
      if (left[s] && right[s]) {
        lists[0].push_back(*left[s]);
        lists[1].push_back(*right[s]);
      }
    return lists;
  };
  SystemAgreement result;
  result.judge = all.judges[one];
  result.other = all.judges[other];
  const std::vector<int32_t> once(all.items.size(), 1);
  result.systems = static_cast<int64_t>(common(once)[0].size());
  if (result.systems < 2) return std::nullopt;
  std::vector<Estimate> estimates = cluster_bootstrap(
      static_cast<int64_t>(all.items.size()), options, [&](std::span<const int32_t> weights) {
        const auto [x, y] = common(weights);
        return Values{kendall(x, y).value, spearman(x, y).value, pearson(x, y).value};
      });
  take(estimates, {&result.kendall_tau_b, &result.spearman_rho, &result.pearson});
  return result;
}

}  // namespace

AgreementReport agreement(std::span<const JudgmentFile> files, const BootstrapOptions& options) {
  const PairUnits all = pair_units(files);
  AgreementReport report;
  for (size_t one = 0; one < all.judges.size(); ++one) {
    if (auto raters = among_raters(all, one, options)) report.raters.push_back(*raters);
    for (size_t other = one + 1; other < all.judges.size(); ++other) {
      for (Alignment alignment : {Alignment::same, Alignment::opposite, Alignment::unknown})
        if (auto found = between(all, one, other, alignment, options)) report.judges.push_back(*found);
      if (auto found = on_systems(all, one, other, options)) report.systems.push_back(*found);
    }
  }
  return report;
}

}  // namespace qlora
