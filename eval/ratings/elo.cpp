#include "eval/ratings/elo.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "core/base/names.h"
#include "core/base/parallel.h"
#include "core/base/philox.h"

namespace qlora {

namespace {

// Ratings are kept in units in which the expected score is the logistic function of a difference.
//
// The logistic function by linear interpolation between steps of 1/512: wrong by at most 5e-8 (h^2/8 max
// |f''|), which moves a rating by less than 1e-4. The exact function is used beyond +-8 (1,390 points).
class Logistic {
 public:
  Logistic() {
    for (size_t i = 0; i < table_.size(); ++i) table_[i] = exact(static_cast<double>(i) / kSteps - kRange);
  }
  double operator()(double x) const {
    if (!(std::fabs(x) < kRange)) return exact(x);
    double position = (x + kRange) * kSteps;
    auto cell = static_cast<int32_t>(position);
    double low = table_[static_cast<size_t>(cell)], high = table_[static_cast<size_t>(cell) + 1];
    return low + (position - cell) * (high - low);
  }

 private:
  static double exact(double x) { return 1 / (1 + std::exp(-x)); }
  static constexpr int kRange = 8, kSteps = 512;
  std::array<double, 2 * kRange * kSteps + 2> table_;
};

// A match in four bytes, so that shuffles stay in the nearest cache.
struct Packed {
  uint32_t bits;
  static constexpr int32_t kMaxSystems = 1 << 15;
  explicit Packed(const Match& m)
      : bits(static_cast<uint32_t>(m.first) << 17 | static_cast<uint32_t>(m.second) << 2 |
             static_cast<uint32_t>(m.outcome)) {}
  size_t first() const { return bits >> 17; }
  size_t second() const { return (bits >> 2) & 0x7fff; }
  double score() const { return 0.5 * (bits & 3); }
};

// Sums over orders of ratings, as differences from the initial one.
struct Sums {
  std::vector<double> sum, squares;
  explicit Sums(size_t systems) : sum(systems), squares(systems) {}
  void add(const Sums& other) {
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += other.sum[i];
      squares[i] += other.squares[i];
    }
  }
};

// Plays random orders of one set of matches.
class Player {
 public:
  Player(size_t systems, double k, Rounds rounds) : systems_(systems), k_(k), rounds_(rounds) {}

  // Adds orders [begin, end) of the stream of `key`. An order depends on the key and its number alone.
  void play(std::span<const Packed> matches, uint64_t key, int64_t begin, int64_t end, Sums& sums) {
    for (int64_t order = begin; order < end; order += kLanes) {
      int lanes = static_cast<int>(std::min<int64_t>(kLanes, end - order));
      for (int lane = 0; lane < lanes; ++lane)
        prepare(lane, matches, mix_seed(key, static_cast<uint64_t>(order + lane)));
      if (rounds_ == Rounds::shuffle) {
        run<Rounds::shuffle>(matches.size(), lanes);
      } else {
        run<Rounds::bootstrap>(matches.size(), lanes);
      }
      for (int lane = 0; lane < lanes; ++lane) {
        for (size_t s = 0; s < systems_; ++s) {
          double r = lane_[lane].ratings[s];
          sums.sum[s] += r;
          sums.squares[s] += r * r;
        }
      }
    }
  }

 private:
  // Two orders side by side hide each other's latencies: within an order every match waits for the one
  // before.
  static constexpr int kLanes = 2;
  struct Lane {
    std::vector<Packed> matches;
    std::vector<uint32_t> random;
    std::vector<double> ratings;
  };

  void prepare(int lane, std::span<const Packed> matches, uint64_t key) {
    Lane& l = lane_[lane];
    l.matches.assign(matches.begin(), matches.end());
    l.ratings.assign(systems_, 0);
    l.random.resize((matches.size() + 3) / 4 * 4);
    for (size_t i = 0; i < l.random.size(); i += 4) {
      Philox4 r = philox(key, static_cast<uint32_t>(i / 4), 0, 0, 0);
      for (size_t j = 0; j < 4; ++j) l.random[i + j] = r.v[j];
    }
  }

  // Draws a match and plays it: a step of a Fisher-Yates shuffle, or any of them. (A range is drawn by
  // multiplication: its bias of n / 2^32 is far below the noise of any number of orders.)
  template <Rounds rounds>
  void step(Lane& l, size_t i, size_t n) {
    size_t from = rounds == Rounds::shuffle ? i : 0;
    size_t j = from + static_cast<size_t>((uint64_t{l.random[i]} * (n - from)) >> 32);
    Packed match = l.matches[j];
    if constexpr (rounds == Rounds::shuffle) l.matches[j] = l.matches[i];
    double& a = l.ratings[match.first()];
    double& b = l.ratings[match.second()];
    double change = k_ * (match.score() - logistic_(a - b));
    a += change;
    b -= change;
  }

  template <Rounds rounds>
  void run(size_t n, int lanes) {
    if (lanes == kLanes) {
      for (size_t i = 0; i < n; ++i)
        for (int lane = 0; lane < kLanes; ++lane) step<rounds>(lane_[lane], i, n);
    } else {
      for (int lane = 0; lane < lanes; ++lane)
        for (size_t i = 0; i < n; ++i) step<rounds>(lane_[lane], i, n);
    }
  }

  static const Logistic& shared_table() {
    static const Logistic table;
    return table;
  }

  size_t systems_;
  double k_;
  Rounds rounds_;
  const Logistic& logistic_ = shared_table();
  Lane lane_[kLanes];
};

// Streams of random numbers; an order's own stream is mixed from these.
enum Stream : uint64_t { kOrders = 1, kDraws = 2, kBootstrapOrders = 3 };

// The number of orders in one part of the sum; the parts are added in order, whoever computed them.
constexpr int64_t kPart = 64;

Sums play_orders(std::span<const Packed> matches, size_t systems, double k, const EloOptions& options) {
  int64_t orders = options.orders, parts = (orders + kPart - 1) / kPart;
  uint64_t key = mix_seed(options.seed, kOrders);
  std::vector<Sums> part(static_cast<size_t>(parts), Sums(systems));
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    Player player(systems, k, options.rounds);
    for (int64_t p = begin; p < end; ++p)
      player.play(matches, key, p * kPart, std::min(orders, (p + 1) * kPart), part[static_cast<size_t>(p)]);
  });
  Sums total(systems);
  for (const Sums& sums : part) total.add(sums);
  return total;
}

// Means over orders of every resample: [bootstrap, systems], in internal units.
std::vector<std::vector<double>> resample(const std::vector<std::vector<Packed>>& by_cluster, size_t systems,
                                          double k, const EloOptions& options) {
  std::vector<std::vector<double>> means(static_cast<size_t>(options.bootstrap));
  uint64_t draws = mix_seed(options.seed, kDraws), orders = mix_seed(options.seed, kBootstrapOrders);
  parallel_for(options.bootstrap, 1, [&](int64_t begin, int64_t end) {
    Player player(systems, k, options.rounds);
    std::vector<Packed> matches;
    for (int64_t b = begin; b < end; ++b) {
      matches.clear();
      PhiloxStream random(mix_seed(draws, static_cast<uint64_t>(b)));
      for (size_t i = 0; i < by_cluster.size(); ++i) {
        const auto& drawn = by_cluster[random.below(static_cast<uint32_t>(by_cluster.size()))];
        matches.insert(matches.end(), drawn.begin(), drawn.end());
      }
      Sums sums(systems);
      player.play(matches, mix_seed(orders, static_cast<uint64_t>(b)), 0, options.bootstrap_orders, sums);
      for (double& sum : sums.sum) sum /= static_cast<double>(options.bootstrap_orders);
      means[static_cast<size_t>(b)] = std::move(sums.sum);
    }
  });
  return means;
}

void check(std::span<const std::string> systems, std::span<const Match> matches, const EloOptions& o) {
  QLORA_CHECK(std::isfinite(o.k) && o.k > 0, usage, "K must be a positive number, not {}", o.k);
  QLORA_CHECK(std::isfinite(o.initial), usage, "the initial rating must be a number, not {}", o.initial);
  QLORA_CHECK(o.base > 1 && o.scale > 0, usage, "the base must exceed 1 and the scale 0 (they are {} and {})",
              o.base, o.scale);
  QLORA_CHECK(o.orders >= 1 && o.orders <= 100'000'000, usage, "orders must lie in 1..100000000, not {}",
              o.orders);
  QLORA_CHECK(o.bootstrap >= 0 && o.bootstrap != 1, usage, "bootstrap must be 0 (none) or at least 2, not {}",
              o.bootstrap);
  QLORA_CHECK(o.bootstrap_orders >= 1, usage, "orders for each resample must be at least 1, not {}",
              o.bootstrap_orders);
  QLORA_CHECK(systems.size() <= Packed::kMaxSystems, data, "{} systems are more than {}", systems.size(),
              Packed::kMaxSystems);
  check_matches(systems, matches);
  if (o.bootstrap > 0) check_clusters(matches, o.cluster);
}

void add_intervals(std::span<const Match> matches, std::span<const Packed> packed, double k, double unit,
                   EloReport& report) {
  const EloOptions& options = report.options;
  Clusters clusters = clusters_of(matches, options.cluster);
  std::vector<std::vector<Packed>> by_cluster(static_cast<size_t>(clusters.count));
  for (size_t i = 0; i < matches.size(); ++i)
    by_cluster[static_cast<size_t>(clusters.of_match[i])].push_back(packed[i]);
  auto draws = resample(by_cluster, report.ratings.size(), k, options);
  for (std::vector<double>& draw : draws)
    for (double& value : draw) value = options.initial + value * unit;
  add_draws(report, draws, true);
  report.ci_method = fmt::format("95%, {} drawn again {} times, {} orders each",
                                 options.cluster == Cluster::prompt ? "prompts" : "single matches",
                                 options.bootstrap, options.bootstrap_orders);
}

}  // namespace

Rounds rounds_from(const std::string& name) {
  if (name == "shuffle") return Rounds::shuffle;
  if (name == "bootstrap") return Rounds::bootstrap;
  fail(ErrorKind::usage, "{}",
       unknown_name("kind of orders", name, std::vector<std::string>{"shuffle", "bootstrap"}));
}

EloReport compute_elo(std::span<const std::string> systems, std::span<const Match> all,
                      const EloOptions& options) {
  check(systems, all, options);
  std::vector<Match> matches;
  for (const Match& m : all)
    if (!options.drop_ties || m.outcome != Outcome::tie) matches.push_back(m);
  QLORA_CHECK(!matches.empty(), data, "all {} matches are ties, and ties are dropped", all.size());
  EloReport report;
  report.options = options;
  report.matches = static_cast<int64_t>(matches.size());
  report.prompts = count_prompts(matches);
  report.ratings = count_games(systems, matches);

  double unit = options.scale / std::log(options.base);  // rating points of one internal unit
  std::vector<Packed> packed(matches.begin(), matches.end());
  auto orders = static_cast<double>(options.orders);
  Sums sums = play_orders(packed, systems.size(), options.k / unit, options);
  for (size_t s = 0; s < systems.size(); ++s) {
    double mean = sums.sum[s] / orders;
    double variance = options.orders > 1 ? (sums.squares[s] - orders * mean * mean) / (orders - 1) : 0;
    Rating& rating = report.ratings[s];
    rating.rating = options.initial + mean * unit;
    rating.order_sd = std::sqrt(std::max(0.0, variance)) * unit;
    rating.mc_error = rating.order_sd / std::sqrt(orders);
  }
  if (options.bootstrap > 0) add_intervals(matches, packed, options.k / unit, unit, report);
  sort_best_first(report);
  return report;
}

}  // namespace qlora
