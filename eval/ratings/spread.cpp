#include "eval/ratings/spread.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "eval/ratings/win_graph.h"

namespace qlora {

namespace {

constexpr double kNudge = 1e-3;
constexpr double kNormal975 = 1.959963984540054;

// Streams of random numbers.
enum Stream : uint64_t { kClusters = 11, kNormals = 12 };

// The matches of each cluster, as places in the table of weights: cell * 3 + outcome.
std::vector<std::vector<int32_t>> slots_by_cluster(const Design& design, std::span<const Match> matches,
                                                   const Clusters& clusters) {
  std::vector<std::vector<int32_t>> slots(static_cast<size_t>(clusters.count));
  for (size_t i = 0; i < matches.size(); ++i)
    slots[static_cast<size_t>(clusters.of_match[i])].push_back(design.cell_of_match[i] * 3 +
                                                               static_cast<int32_t>(matches[i].outcome));
  return slots;
}

bool has_strengths(const Design& design, std::span<const PerOutcome> weights) {
  WinGraph graph(design.systems);
  std::vector<int32_t> anchored;
  for (size_t s = 0; s < design.systems; ++s)
    if (design.fixed[s]) anchored.push_back(static_cast<int32_t>(s));
  graph.tie_together(anchored);
  PerOutcome sum = {};
  for (size_t c = 0; c < design.cells.size(); ++c)
    for (size_t outcome = 0; outcome < 3; ++outcome) {
      if (weights[c][outcome] == 0) continue;
      graph.add(design.cells[c].first, design.cells[c].second, static_cast<Outcome>(outcome));
      sum[outcome] += weights[c][outcome];
    }
  if (design.tie >= 0 && (sum[1] == 0 || sum[0] + sum[2] == 0)) return false;
  return graph.strongly_connected();
}

// A draw without a maximum gets kNudge of each outcome in each cell, with which there always is one.
std::vector<double> fit_draw(const Design& design, std::vector<PerOutcome>& weights, const Fit& best,
                             bool& degenerate) {
  degenerate = !has_strengths(design, weights);
  if (!degenerate) {
    Fit found = fit(design, weights, best.parameters);
    if (found.converged) return std::move(found.parameters);
    degenerate = true;
  }
  for (PerOutcome& weight : weights)
    for (double& w : weight) w += kNudge;
  return fit(design, weights, best.parameters).parameters;
}

void percentiles(Spread& spread, size_t parameters) {
  double count = static_cast<double>(spread.draws.size());
  for (size_t p = 0; p < parameters; ++p) {
    std::vector<double> values;
    for (const std::vector<double>& draw : spread.draws) values.push_back(draw[p]);
    double mean = std::accumulate(values.begin(), values.end(), 0.0) / count, squares = 0;
    for (double v : values) squares += (v - mean) * (v - mean);
    std::sort(values.begin(), values.end());
    spread.se.push_back(std::sqrt(squares / std::max(count - 1, 1.0)));
    spread.lo.push_back(quantile_of_sorted(values, 0.025));
    spread.hi.push_back(quantile_of_sorted(values, 0.975));
  }
}

// Standard normal numbers of a key, by Box and Muller.
Eigen::VectorXd normals(Eigen::Index count, uint64_t key) {
  PhiloxStream random(key);
  Eigen::VectorXd z(count);
  for (Eigen::Index i = 0; i < count; ++i) {
    double u = (random.next() + 0.5) * 0x1p-32, v = (random.next() + 0.5) * 0x1p-32;
    z[i] = std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
  }
  return z;
}

}  // namespace

Spread bootstrap_spread(const Design& design, std::span<const Match> matches, const Clusters& clusters,
                        const Fit& best, int64_t draws, uint64_t seed) {
  auto slots = slots_by_cluster(design, matches, clusters);
  Spread spread;
  spread.draws.resize(static_cast<size_t>(draws));
  std::vector<uint8_t> degenerate(static_cast<size_t>(draws));
  uint64_t stream = mix_seed(seed, kClusters);
  parallel_for(draws, 1, [&](int64_t begin, int64_t end) {
    std::vector<PerOutcome> weights(design.cells.size());
    for (int64_t i = begin; i < end; ++i) {
      std::fill(weights.begin(), weights.end(), PerOutcome{});
      PhiloxStream random(mix_seed(stream, static_cast<uint64_t>(i)));
      for (int32_t n = 0; n < clusters.count; ++n)
        for (int32_t slot : slots[random.below(static_cast<uint32_t>(clusters.count))])
          weights[static_cast<size_t>(slot / 3)][static_cast<size_t>(slot % 3)] += 1;
      bool failed = false;
      spread.draws[static_cast<size_t>(i)] = fit_draw(design, weights, best, failed);
      degenerate[static_cast<size_t>(i)] = failed;
    }
  });
  spread.degenerate = std::count(degenerate.begin(), degenerate.end(), 1);
  percentiles(spread, design.parameters);
  return spread;
}

Spread sandwich_spread(const Design& design, std::span<const Match> matches, const Clusters& clusters,
                       const Fit& best, int64_t draws, uint64_t seed) {
  Square covariance = sandwich(design, matches, clusters.of_match, clusters.count, best.parameters);
  auto size = static_cast<Eigen::Index>(design.parameters);
  Eigen::Map<const Eigen::MatrixXd> v(covariance.data(), size, size);  // symmetric
  Spread spread;
  for (Eigen::Index p = 0; p < size; ++p) {
    double se = std::sqrt(std::max(0.0, v(p, p))), at = best.parameters[static_cast<size_t>(p)];
    spread.se.push_back(se);
    spread.lo.push_back(at - kNormal975 * se);
    spread.hi.push_back(at + kNormal975 * se);
  }
  if (draws == 0) return spread;
  Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(v);
  Eigen::MatrixXd root =
      eigen.eigenvectors() * eigen.eigenvalues().cwiseMax(0).cwiseSqrt().asDiagonal().toDenseMatrix();
  Eigen::Map<const Eigen::VectorXd> mean(best.parameters.data(), size);
  uint64_t stream = mix_seed(seed, kNormals);
  for (int64_t i = 0; i < draws; ++i) {
    Eigen::VectorXd x = mean + root * normals(size, mix_seed(stream, static_cast<uint64_t>(i)));
    spread.draws.emplace_back(x.data(), x.data() + size);
  }
  return spread;
}

}  // namespace qlora
