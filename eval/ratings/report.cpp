#include "eval/ratings/report.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/check.h"
#include "core/base/names.h"

namespace qlora {

namespace {

std::vector<int32_t> known_prompts(std::span<const Match> matches) {
  std::vector<int32_t> numbers;
  for (const Match& m : matches)
    if (m.prompt >= 0) numbers.push_back(m.prompt);
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

// The first rank at which the cumulated probability reaches q.
int rank_at(const std::vector<double>& probability, double q) {
  double sum = 0;
  for (size_t rank = 0; rank < probability.size(); ++rank) {
    sum += probability[rank];
    if (sum >= q - 1e-12) return static_cast<int>(rank) + 1;
  }
  return static_cast<int>(probability.size());
}

}  // namespace

Cluster cluster_from(const std::string& name) {
  if (name == "prompt") return Cluster::prompt;
  if (name == "battle") return Cluster::match;
  fail(ErrorKind::usage, "{}", unknown_name("cluster", name, std::vector<std::string>{"prompt", "battle"}));
}

Clusters clusters_of(std::span<const Match> matches, Cluster cluster) {
  Clusters clusters;
  clusters.of_match.resize(matches.size());
  if (cluster == Cluster::match) {
    std::iota(clusters.of_match.begin(), clusters.of_match.end(), 0);
    clusters.count = static_cast<int32_t>(matches.size());
    return clusters;
  }
  std::vector<int32_t> prompts = known_prompts(matches);
  for (size_t i = 0; i < matches.size(); ++i) {
    auto place = std::lower_bound(prompts.begin(), prompts.end(), matches[i].prompt);
    clusters.of_match[i] = static_cast<int32_t>(place - prompts.begin());
  }
  clusters.count = static_cast<int32_t>(prompts.size());
  return clusters;
}

void check_clusters(std::span<const Match> matches, Cluster cluster) {
  if (cluster == Cluster::match) return;
  for (const Match& m : matches)
    QLORA_CHECK(
        m.prompt >= 0, usage,
        "an interval needs to know the prompt of every match; use --interval none, or --cluster battle, "
        "which is too narrow where prompts matter");
}

void check_matches(std::span<const std::string> systems, std::span<const Match> matches) {
  QLORA_CHECK(!matches.empty(), data, "there is no match to rate");
  auto count = static_cast<int32_t>(systems.size());
  for (const Match& m : matches) {
    QLORA_CHECK(m.first >= 0 && m.first < count && m.second >= 0 && m.second < count, data,
                "a match between systems {} and {} of {}", m.first, m.second, count);
    QLORA_CHECK(m.first != m.second, data, "a match of {} against itself",
                systems[static_cast<size_t>(m.first)]);
  }
}

std::vector<Rating> count_games(std::span<const std::string> systems, std::span<const Match> matches) {
  std::vector<Rating> ratings(systems.size());
  for (size_t s = 0; s < systems.size(); ++s) ratings[s].system = systems[s];
  for (const Match& m : matches) {
    Rating& first = ratings[static_cast<size_t>(m.first)];
    Rating& second = ratings[static_cast<size_t>(m.second)];
    ++first.games;
    ++second.games;
    if (m.outcome == Outcome::tie) {
      ++first.ties;
      ++second.ties;
    } else {
      bool first_wins = m.outcome == Outcome::first_wins;
      ++(first_wins ? first : second).wins;
      ++(first_wins ? second : first).losses;
    }
  }
  return ratings;
}

int64_t count_prompts(std::span<const Match> matches) {
  return static_cast<int64_t>(known_prompts(matches).size());
}

double quantile_of_sorted(const std::vector<double>& sorted, double q) {
  double position = q * static_cast<double>(sorted.size() - 1);
  auto low = static_cast<size_t>(position);
  size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (position - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

void add_draws(RatingReport& report, const std::vector<std::vector<double>>& draws, bool intervals) {
  size_t systems = report.ratings.size();
  auto count = static_cast<double>(draws.size());
  report.above.assign(systems, std::vector<double>(systems));
  for (Rating& rating : report.ratings) rating.rank_probability.assign(systems, 0);
  for (const std::vector<double>& draw : draws)
    for (size_t a = 0; a < systems; ++a) {
      size_t better = 0;
      for (size_t b = 0; b < systems; ++b) {
        if (draw[a] > draw[b]) ++report.above[a][b];
        better += draw[b] > draw[a] ? 1 : 0;
      }
      ++report.ratings[a].rank_probability[better];
    }
  for (size_t a = 0; a < systems; ++a)
    for (size_t b = 0; b < systems; ++b) {
      report.above[a][b] /= count;
      report.ratings[a].rank_probability[b] /= count;
    }
  for (size_t s = 0; s < systems; ++s) {
    Rating& rating = report.ratings[s];
    rating.rank_lo = rank_at(rating.rank_probability, 0.025);
    rating.rank_hi = rank_at(rating.rank_probability, 0.975);
    if (!intervals) continue;
    std::vector<double> values;
    for (const std::vector<double>& draw : draws) values.push_back(draw[s]);
    double mean = std::accumulate(values.begin(), values.end(), 0.0) / count, squares = 0;
    for (double v : values) squares += (v - mean) * (v - mean);
    std::sort(values.begin(), values.end());
    if (draws.size() > 1) rating.se = std::sqrt(squares / (count - 1));
    rating.ci_lo = quantile_of_sorted(values, 0.025);
    rating.ci_hi = quantile_of_sorted(values, 0.975);
  }
}

void sort_best_first(RatingReport& report) {
  std::vector<size_t> order(report.ratings.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t x, size_t y) {
    const Rating &a = report.ratings[x], &b = report.ratings[y];
    return a.rating != b.rating ? a.rating > b.rating : a.system < b.system;
  });
  std::vector<Rating> ratings;
  for (size_t place : order) ratings.push_back(std::move(report.ratings[place]));
  report.ratings = std::move(ratings);
  if (report.above.empty()) return;
  auto above = report.above;
  for (size_t a = 0; a < order.size(); ++a)
    for (size_t b = 0; b < order.size(); ++b) above[a][b] = report.above[order[a]][order[b]];
  report.above = std::move(above);
}

}  // namespace qlora
