#include "eval/ratings/elo.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/base/check.h"
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
  Player(size_t systems, double k) : systems_(systems), k_(k) {}

  // Adds orders [begin, end) of the stream of `key`. An order depends on the key and its number alone.
  void play(std::span<const Packed> matches, uint64_t key, int64_t begin, int64_t end, Sums& sums) {
    for (int64_t order = begin; order < end; order += kLanes) {
      int lanes = static_cast<int>(std::min<int64_t>(kLanes, end - order));
      for (int lane = 0; lane < lanes; ++lane)
        prepare(lane, matches, mix_seed(key, static_cast<uint64_t>(order + lane)));
      if (lanes == kLanes) {
        run<kLanes>(matches.size());
      } else {
        run<1>(matches.size(), lanes);
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

  // One step of a Fisher-Yates shuffle, and the match that it draws. (A range is drawn by multiplication: its
  // bias of n / 2^32 is far below the noise of any number of orders.)
  void step(Lane& l, size_t i, size_t n) {
    size_t j = i + static_cast<size_t>((uint64_t{l.random[i]} * (n - i)) >> 32);
    Packed match = l.matches[j];
    l.matches[j] = l.matches[i];
    double& a = l.ratings[match.first()];
    double& b = l.ratings[match.second()];
    double change = k_ * (match.score() - logistic_(a - b));
    a += change;
    b -= change;
  }

  template <int lanes>
  void run(size_t n, int used = lanes) {
    if constexpr (lanes == 1) {
      for (int lane = 0; lane < used; ++lane)
        for (size_t i = 0; i < n; ++i) step(lane_[lane], i, n);
    } else {
      for (size_t i = 0; i < n; ++i)
        for (int lane = 0; lane < lanes; ++lane) step(lane_[lane], i, n);
    }
  }

  static const Logistic& shared_table() {
    static const Logistic table;
    return table;
  }

  size_t systems_;
  double k_;
  const Logistic& logistic_ = shared_table();
  Lane lane_[kLanes];
};

// The number of orders in one part of the sum; the parts are added in order, whoever computed them.
constexpr int64_t kPart = 64;

Sums play_orders(std::span<const Packed> matches, size_t systems, double k, int64_t orders, uint64_t key) {
  int64_t parts = (orders + kPart - 1) / kPart;
  std::vector<Sums> part(static_cast<size_t>(parts), Sums(systems));
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    Player player(systems, k);
    for (int64_t p = begin; p < end; ++p)
      player.play(matches, key, p * kPart, std::min(orders, (p + 1) * kPart), part[static_cast<size_t>(p)]);
  });
  Sums total(systems);
  for (const Sums& sums : part) total.add(sums);
  return total;
}

// Streams of random numbers; an order's own stream is mixed from these.
enum Stream : uint64_t { kOrders = 1, kDraws = 2, kBootstrapOrders = 3 };

// Means over orders of every resample: [bootstrap, systems], in internal units.
std::vector<std::vector<double>> resample(const std::vector<std::vector<Packed>>& by_prompt, size_t systems,
                                          double k, const EloOptions& options) {
  std::vector<std::vector<double>> means(static_cast<size_t>(options.bootstrap));
  uint64_t draws = mix_seed(options.seed, kDraws), orders = mix_seed(options.seed, kBootstrapOrders);
  parallel_for(options.bootstrap, 1, [&](int64_t begin, int64_t end) {
    Player player(systems, k);
    std::vector<Packed> matches;
    for (int64_t b = begin; b < end; ++b) {
      matches.clear();
      PhiloxStream random(mix_seed(draws, static_cast<uint64_t>(b)));
      for (size_t i = 0; i < by_prompt.size(); ++i) {
        const auto& drawn = by_prompt[random.below(static_cast<uint32_t>(by_prompt.size()))];
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

// A quantile by linear interpolation between order statistics. REQUIRES: sorted, not empty.
double quantile(const std::vector<double>& sorted, double q) {
  double position = q * static_cast<double>(sorted.size() - 1);
  auto low = static_cast<size_t>(position);
  size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (position - static_cast<double>(low)) * (sorted[high] - sorted[low]);
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
  QLORA_CHECK(!matches.empty(), data, "there is no match to rate");
  QLORA_CHECK(systems.size() <= Packed::kMaxSystems, data, "{} systems are more than {}", systems.size(),
              Packed::kMaxSystems);
  auto count = static_cast<int32_t>(systems.size());
  for (const Match& m : matches) {
    QLORA_CHECK(m.first >= 0 && m.first < count && m.second >= 0 && m.second < count, data,
                "a match between systems {} and {} of {}", m.first, m.second, count);
    QLORA_CHECK(m.first != m.second, data, "a match of {} against itself",
                systems[static_cast<size_t>(m.first)]);
    QLORA_CHECK(o.bootstrap == 0 || m.prompt >= 0, usage,
                "an interval needs to know the prompt of every match; use --bootstrap 0");
  }
}

void count_games(std::span<const Match> matches, std::vector<Rating>& ratings) {
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
}

void add_intervals(std::span<const Match> matches, std::span<const Packed> packed, double k, double unit,
                   EloReport& report) {
  const EloOptions& options = report.options;
  std::vector<std::vector<Packed>> by_prompt(static_cast<size_t>(report.prompts));
  // Prompts are numbered anew, in order, without gaps.
  std::vector<int32_t> numbers;
  for (const Match& m : matches) numbers.push_back(m.prompt);
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  for (size_t i = 0; i < matches.size(); ++i) {
    auto place = std::lower_bound(numbers.begin(), numbers.end(), matches[i].prompt);
    by_prompt[static_cast<size_t>(place - numbers.begin())].push_back(packed[i]);
  }
  auto means = resample(by_prompt, report.ratings.size(), k, options);
  for (size_t s = 0; s < report.ratings.size(); ++s) {
    std::vector<double> values;
    for (const auto& mean : means) values.push_back(options.initial + mean[s] * unit);
    std::sort(values.begin(), values.end());
    report.ratings[s].ci_lo = quantile(values, 0.025);
    report.ratings[s].ci_hi = quantile(values, 0.975);
  }
  report.ci_method = fmt::format("95%, prompts drawn again {} times, {} orders each", options.bootstrap,
                                 options.bootstrap_orders);
}

int64_t count_prompts(std::span<const Match> matches) {
  std::vector<int32_t> numbers;
  for (const Match& m : matches)
    if (m.prompt >= 0) numbers.push_back(m.prompt);
  std::sort(numbers.begin(), numbers.end());
  return std::unique(numbers.begin(), numbers.end()) - numbers.begin();
}

}  // namespace

EloReport compute_elo(std::span<const std::string> systems, std::span<const Match> matches,
                      const EloOptions& options) {
  check(systems, matches, options);
  EloReport report;
  report.options = options;
  report.matches = static_cast<int64_t>(matches.size());
  report.prompts = count_prompts(matches);
  report.ratings.resize(systems.size());
  for (size_t s = 0; s < systems.size(); ++s) report.ratings[s].system = systems[s];
  count_games(matches, report.ratings);

  double unit = options.scale / std::log(options.base);  // rating points of one internal unit
  std::vector<Packed> packed(matches.begin(), matches.end());
  auto orders = static_cast<double>(options.orders);
  Sums sums =
      play_orders(packed, systems.size(), options.k / unit, options.orders, mix_seed(options.seed, kOrders));
  for (size_t s = 0; s < systems.size(); ++s) {
    double mean = sums.sum[s] / orders;
    double variance = options.orders > 1 ? (sums.squares[s] - orders * mean * mean) / (orders - 1) : 0;
    Rating& rating = report.ratings[s];
    rating.rating = options.initial + mean * unit;
    rating.order_sd = std::sqrt(std::max(0.0, variance)) * unit;
    rating.mc_error = rating.order_sd / std::sqrt(orders);
  }
  if (options.bootstrap > 0) add_intervals(matches, packed, options.k / unit, unit, report);
  std::sort(report.ratings.begin(), report.ratings.end(), [](const Rating& a, const Rating& b) {
    return a.rating != b.rating ? a.rating > b.rating : a.system < b.system;
  });
  return report;
}

}  // namespace qlora
