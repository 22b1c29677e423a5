#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "core/base/test_data.h"
#include "eval/judge/judgments.h"
#include "eval/ratings/presets.h"
#include "eval/ratings/simulated_tournament.h"
#include "eval/ratings/strengths.h"

using namespace qlora;
using Catch::Contains;

namespace {

constexpr double kUnit = 173.71779276130073;  // 400 / ln(10): rating points of one natural unit
constexpr RatingModel kModels[] = {RatingModel::bt, RatingModel::rao_kupper, RatingModel::davidson};

const Rating& of(const RatingReport& report, const std::string& system) {
  for (const Rating& r : report.ratings)
    if (r.system == system) return r;
  throw std::runtime_error("no " + system);
}

const Term& term(const ModelReport& report, const std::string& name) {
  for (const Term& t : report.terms)
    if (t.name == name) return t;
  throw std::runtime_error("no term " + name);
}

ModelOptions with(RatingModel model, Interval interval = Interval::none) {
  ModelOptions options;
  options.model = model;
  options.interval = interval;
  return options;
}

void add(Matches& all, int32_t first, int32_t second, int wins, int ties, int losses) {
  for (auto [count, outcome] :
       {std::pair{wins, Outcome::first_wins}, {ties, Outcome::tie}, {losses, Outcome::second_wins}})
    for (int i = 0; i < count; ++i)
      all.matches.push_back({first, second, outcome, static_cast<int32_t>(all.matches.size() % 7)});
}

Matches duel(int wins, int ties, int losses) {
  Matches all;
  all.systems = {"red", "blue"};
  all.judges = {"judge"};
  add(all, 0, 1, wins, ties, losses);
  return all;
}

}  // namespace

TEST_CASE("strengths of two systems have their closed form") {
  Matches all = duel(50, 20, 30);
  ModelReport bt = compute_strengths(all, with(RatingModel::bt));
  CHECK(of(bt, "red").rating - of(bt, "blue").rating == Approx(kUnit * std::log(60.0 / 40)));
  CHECK(of(bt, "red").rating + of(bt, "blue").rating == Approx(2000));
  CHECK(of(bt, "red").wins == 50);
  CHECK(bt.terms.empty());

  ModelReport davidson = compute_strengths(all, with(RatingModel::davidson));
  CHECK(of(davidson, "red").rating - of(davidson, "blue").rating == Approx(kUnit * std::log(50.0 / 30)));
  CHECK(term(davidson, "tie weight").value == Approx(20 / std::sqrt(50.0 * 30)));

  ModelReport rao = compute_strengths(all, with(RatingModel::rao_kupper));
  double up = std::log(0.5 / 0.5), down = std::log(0.3 / 0.7);  // d - t and -d - t
  CHECK(of(rao, "red").rating - of(rao, "blue").rating == Approx(kUnit * (up - down) / 2));
  CHECK(term(rao, "tie threshold").value == Approx(kUnit * -(up + down) / 2));

  ModelOptions dropped = with(RatingModel::bt);
  dropped.drop_ties = true;
  ModelReport decisive = compute_strengths(all, dropped);
  CHECK(decisive.matches == 80);
  CHECK(of(decisive, "red").rating - of(decisive, "blue").rating == Approx(kUnit * std::log(50.0 / 30)));
  double likelihood = 50 * std::log(0.5) + 20 * std::log(0.2) + 30 * std::log(0.3);
  CHECK(davidson.log_likelihood == Approx(likelihood));
  CHECK(rao.log_likelihood == Approx(likelihood));
}

TEST_CASE("the place of an answer is told from its worth") {
  // Red shown first wins 70 of 100; shown second it wins 50: odds of 7/3 and 1.
  Matches all = duel(70, 0, 30);
  add(all, 1, 0, 50, 0, 50);
  ModelOptions options = with(RatingModel::bt);
  options.position = Position::shared;
  ModelReport report = compute_strengths(all, options);
  double up = std::log(7.0 / 3), down = 0;
  CHECK(term(report, "position").value == Approx(kUnit * (up + down) / 2));
  CHECK(of(report, "red").rating - of(report, "blue").rating == Approx(kUnit * (up - down) / 2));

  // Another judge with the opposite habit has a term of its own.
  size_t so_far = all.matches.size();
  all.judges.push_back("contrary");
  add(all, 0, 1, 50, 0, 50);
  add(all, 1, 0, 70, 0, 30);
  for (size_t i = so_far; i < all.matches.size(); ++i) std::swap(all.matches[i].first, all.matches[i].second);
  for (size_t i = so_far; i < all.matches.size(); ++i) {
    Match& m = all.matches[i];
    m.outcome = static_cast<Outcome>(2 - static_cast<int>(m.outcome));
    m.judge = 1;
  }
  options.position = Position::per_judge;
  ModelReport both = compute_strengths(all, options);
  CHECK(term(both, "position of judge").value == Approx(-term(both, "position of contrary").value));
  CHECK(term(both, "position of judge").value > 50);

  // Where the order is unknown nothing is said of it.
  for (Match& m : all.matches) m.order_known = m.judge == 0;
  CHECK_THROWS_WITH(compute_strengths(all, options), Contains("who was shown first"));
}

TEST_CASE("exchanging every order of showing turns the position term around and nothing else") {
  Matches all = simulated_tournament({}, 5);
  Matches turned = all;
  for (Match& m : turned.matches) {
    std::swap(m.first, m.second);
    m.outcome = static_cast<Outcome>(2 - static_cast<int>(m.outcome));
  }
  // The same judgments told from the other side: shown first is now whoever was shown second.
  for (RatingModel model : kModels) {
    ModelOptions options = with(model);
    options.position = Position::shared;
    ModelReport a = compute_strengths(all, options), b = compute_strengths(turned, options);
    CHECK(term(a, "position").value == Approx(-term(b, "position").value));
    for (const Rating& r : a.ratings) CHECK(r.rating == Approx(of(b, r.system).rating).margin(1e-6));
    CHECK(a.log_likelihood == Approx(b.log_likelihood));
  }
}

TEST_CASE("longer answers that win for their length are told from better ones") {
  Matches all;
  all.systems = {"short", "long", "middle"};
  all.judges = {"judge"};
  PhiloxStream random(4);
  for (int i = 0; i < 30'000; ++i) {
    auto a = static_cast<int32_t>(i % 3), b = static_cast<int32_t>((a + 1 + (i / 3) % 2) % 3);
    // Lengths differ from answer to answer; no system is better, only longer.
    double base[] = {-0.2, 0.2, 0};
    double x = base[a] - base[b] + 0.3 * (random.uniform() - 0.5);
    bool wins = random.uniform() < 1 / (1 + std::exp(-3 * x));
    all.matches.push_back(
        {a, b, wins ? Outcome::first_wins : Outcome::second_wins, i % 100, 0, true, static_cast<float>(x)});
  }
  ModelReport plain = compute_strengths(all, with(RatingModel::bt));
  CHECK(of(plain, "long").rating > of(plain, "short").rating + 100);
  ModelOptions options = with(RatingModel::bt, Interval::sandwich);
  options.length = true;
  ModelReport controlled = compute_strengths(all, options);
  for (const Rating& r : controlled.ratings) CHECK(r.rating == Approx(1000).margin(25));
  const Term& length = term(controlled, "length");
  double squares = 0;
  for (const Match& m : all.matches) squares += static_cast<double>(m.length) * m.length;
  CHECK(length.value == Approx(kUnit * 3 * std::sqrt(squares / 30'000)).epsilon(0.08));
  CHECK(length.ci_lo < length.value);
  for (Match& m : all.matches) m.length = 0;
  CHECK_THROWS_WITH(compute_strengths(all, options), Contains("--answers"));
}

TEST_CASE("anchors hold their ratings and move the rest along") {
  Matches all = simulated_tournament({}, 3);
  ModelReport free = compute_strengths(all, with(RatingModel::bt));
  ModelOptions options = with(RatingModel::bt, Interval::sandwich);
  options.anchors = {{"s2", 1100}};
  ModelReport one = compute_strengths(all, options);
  CHECK(of(one, "s2").rating == Approx(1100));
  CHECK(*of(one, "s2").se == Approx(0).margin(1e-9));
  double shift = 1100 - of(free, "s2").rating;
  for (const Rating& r : free.ratings) CHECK(of(one, r.system).rating == Approx(r.rating + shift));

  // Two anchors fix the scale too: here they stand further apart than the matches say.
  options.anchors = {{"s0", 1300}, {"s7", 700}};
  ModelReport two = compute_strengths(all, options);
  CHECK(of(two, "s0").rating == Approx(1300));
  CHECK(of(two, "s7").rating == Approx(700));
  CHECK(two.log_likelihood < free.log_likelihood);
  options.anchors = {{"s9", 1000}};
  CHECK_THROWS_WITH(compute_strengths(all, options), Contains("unknown system `s9`"));
  options.anchors = {{"s1", 1000}, {"s1", 1100}};
  CHECK_THROWS_WITH(compute_strengths(all, options), Contains("two anchors"));
}

TEST_CASE("win graphs without finite strengths are named") {
  Matches all;
  all.systems = {"top", "red", "blue", "bottom", "idle"};
  all.judges = {"judge"};
  add(all, 0, 1, 5, 0, 0);
  add(all, 1, 2, 3, 1, 3);
  add(all, 2, 3, 4, 0, 0);
  auto compute = [&](RatingModel model) { return compute_strengths(all, with(model)); };
  CHECK_THROWS_WITH(compute(RatingModel::bt), Contains("no match") && Contains("idle") && !Contains("red"));
  all.systems.pop_back();
  CHECK_THROWS_WITH(compute(RatingModel::bt), Contains("not strongly connected") &&
                                                  Contains("top has no loss and no tie in 5 matches") &&
                                                  Contains("bottom has no win and no tie in 4 matches") &&
                                                  Contains("{top}, {red, blue}, {bottom}"));
  // Anchors hold a system that the matches would let go.
  ModelOptions anchored = with(RatingModel::bt);
  anchored.anchors = {{"top", 1200}, {"red", 1000}, {"bottom", 800}};
  CHECK(of(compute_strengths(all, anchored), "blue").rating > 900);
  add(all, 1, 0, 1, 0, 0);
  add(all, 3, 1, 1, 0, 0);
  CHECK(compute(RatingModel::bt).ratings.size() == 4);
  CHECK(compute(RatingModel::davidson).ratings.size() == 4);

  Matches apart;
  apart.systems = {"a", "b", "c", "d"};
  apart.judges = {"judge"};
  add(apart, 0, 1, 3, 0, 3);
  add(apart, 2, 3, 3, 1, 3);
  CHECK_THROWS_WITH(compute_strengths(apart, with(RatingModel::rao_kupper)),
                    Contains("{a, b}") && Contains("{c, d}"));
  apart.matches.clear();
  CHECK_THROWS_WITH(compute_strengths(apart, with(RatingModel::bt)), Contains("no match"));
}

TEST_CASE("data that one term explains without remainder are named") {
  Matches all = duel(10, 0, 0);  // red first always wins
  add(all, 1, 0, 10, 0, 0);      // and so does blue
  ModelOptions options = with(RatingModel::bt);
  CHECK(of(compute_strengths(all, options), "red").rating == Approx(1000));
  options.position = Position::shared;
  CHECK_THROWS_WITH(compute_strengths(all, options), Contains("shown first explains every outcome"));
  // Wins and ties alone: with ties as half a win all is well, but a model of ties lets the winner go.
  Matches ahead = duel(10, 5, 0);
  CHECK(of(compute_strengths(ahead, with(RatingModel::bt)), "red").rating > 1000);
  for (RatingModel model : {RatingModel::davidson, RatingModel::rao_kupper})
    CHECK_THROWS_WITH(compute_strengths(ahead, with(model)),
                      Contains("red") && Contains("no finite maximum"));
  CHECK_THROWS_WITH(compute_strengths(duel(5, 0, 5), with(RatingModel::davidson)), Contains("0 of 10"));
  CHECK_THROWS_WITH(compute_strengths(duel(0, 5, 0), with(RatingModel::rao_kupper)), Contains("5 of 5"));
  ModelOptions dropped = with(RatingModel::bt);
  dropped.drop_ties = true;
  CHECK_THROWS_WITH(compute_strengths(duel(0, 5, 0), dropped), Contains("all 5 matches are ties"));
  dropped.model = RatingModel::davidson;
  CHECK_THROWS_WITH(compute_strengths(duel(2, 5, 2), dropped), Contains("cannot be dropped"));
}

TEST_CASE("the sandwich of single matches is the binomial's variance") {
  ModelOptions options = with(RatingModel::bt, Interval::sandwich);
  options.cluster = Cluster::match;
  ModelReport report = compute_strengths(duel(60, 0, 40), options);
  // Var(log odds) = 1 / (n p q) times n / (n - 1); each rating moves by half of the difference.
  double expected = kUnit / 2 * std::sqrt(1 / (100 * 0.6 * 0.4) * 100 / 99);
  CHECK(*of(report, "red").se == Approx(expected));
  CHECK(*of(report, "red").ci_hi == Approx(of(report, "red").rating + 1.959964 * expected));
  // A tie varies less than a coin.
  ModelReport ties = compute_strengths(duel(30, 60, 10), options);
  CHECK(*of(ties, "red").se < 0.8 * expected);
}

TEST_CASE("intervals of strengths do not depend on threads and agree with each other") {
  Matches all = simulated_tournament({}, 1);
  for (RatingModel model : kModels) {
    ModelOptions options = with(model, Interval::bootstrap);
    options.position = Position::shared;
    options.draws = 300;
    int before = thread_count();
    set_thread_count(1);
    ModelReport one = compute_strengths(all, options);
    set_thread_count(3);
    ModelReport three = compute_strengths(all, options);
    set_thread_count(before);
    options.interval = Interval::sandwich;
    ModelReport robust = compute_strengths(all, options);
    CHECK(one.degenerate_draws == 0);
    for (size_t i = 0; i < one.ratings.size(); ++i) {
      const Rating &a = one.ratings[i], &b = three.ratings[i], &c = of(robust, a.system);
      INFO(rating_model_name(model) << " " << a.system);
      CHECK(a.rating == b.rating);
      CHECK(*a.ci_lo == *b.ci_lo);
      CHECK(*a.ci_hi == *b.ci_hi);
      CHECK(a.rank_probability == b.rank_probability);
      CHECK(*a.se == Approx(*c.se).epsilon(0.2));
      double sum = 0;
      for (double p : a.rank_probability) sum += p;
      CHECK(sum == Approx(1));
      CHECK(*a.rank_lo <= static_cast<int>(i) + 1);
      CHECK(*a.rank_hi >= static_cast<int>(i) + 1);
    }
    CHECK(one.above[0][7] == 1);
    CHECK(one.above[7][0] == 0);
    CHECK(*term(one, "position").ci_lo > 0);
    CHECK_THAT(one.ci_method, Contains("prompts drawn again 300 times"));
    CHECK_THAT(robust.ci_method, Contains("sandwich over prompts"));
  }
}

TEST_CASE("draws without finite strengths are counted and kept") {
  Matches all = duel(12, 1, 1);
  for (size_t i = 0; i < all.matches.size(); ++i) all.matches[i].prompt = static_cast<int32_t>(i);
  ModelOptions options = with(RatingModel::bt, Interval::bootstrap);
  options.draws = 200;
  ModelReport report = compute_strengths(all, options);
  CHECK(report.degenerate_draws > 5);
  CHECK(report.degenerate_draws < 60);
  CHECK_THAT(report.ci_method, Contains("without finite strengths"));
  CHECK(*of(report, "red").ci_hi > of(report, "red").rating + 400);
  all.matches[0].prompt = -1;
  CHECK_THROWS_WITH(compute_strengths(all, options), Contains("prompt of every match"));
  options.cluster = Cluster::match;
  CHECK(compute_strengths(all, options).ratings.front().system == "red");
}

TEST_CASE("Bradley Terry agrees with choix and scipy", "[golden]") {
  Path path = test::goldens() / "metrics/bradley_terry.json";
  if (test::missing(path)) return;
  Json golden = parse_json(read_file(path), path.string());
  for (const Json& game : golden.at("cases")) {
    Matches all;
    all.judges = {"judge"};
    auto players = game.at("n_players").get<size_t>();
    for (size_t i = 0; i < players; ++i) all.systems.push_back(std::to_string(i));
    for (const Json& row : game.at("games_i_j_score_of_i"))
      all.matches.push_back({row[0].get<int32_t>(), row[1].get<int32_t>(),
                             static_cast<Outcome>(std::lround(2 * row[2].get<double>()))});
    ModelReport report = compute_strengths(all, with(RatingModel::bt));
    Design design = make_design(RatingModel::bt, all.matches, players, 1, Position::none, false);
    std::vector<PerOutcome> weights = count_outcomes(design, all.matches);
    Fit found = fit(design, weights);
    Square covariance = inverse_information(design, weights, found.parameters);
    for (size_t i = 0; i < players; ++i) {
      INFO(game.at("name").get<std::string>() << " player " << i);
      CHECK(found.parameters[i] == Approx(game.at("log_strength_mean_zero")[i].get<double>()).margin(1e-6));
      CHECK(of(report, std::to_string(i)).rating ==
            Approx(game.at("elo_scale_400_log10_mean_1000")[i].get<double>()).margin(1e-4));
      CHECK(std::sqrt(covariance[i * players + i]) ==
            Approx(game.at("standard_error_mean_zero")[i].get<double>()).margin(1e-6));
    }
    CHECK(-report.log_likelihood == Approx(game.at("negative_log_likelihood").get<double>()).margin(1e-6));
    // The regularized variant: 0.1 times the squares, on every game counted twice.
    for (PerOutcome& w : weights)
      for (double& count : w) count *= 2;
    Fit ridged = fit(design, weights, {}, 0.2);
    for (size_t i = 0; i < players; ++i)
      CHECK(ridged.parameters[i] ==
            Approx(game.at("choix_l2_alpha0.1_on_doubled_games")[i].get<double>()).margin(1e-6));
  }
}

namespace {

Matches gathered(const Path& folder, VoteRule rule) {
  std::vector<JudgmentFile> files;
  for (const Path& path : find_judgment_files(std::vector<std::string>{folder.string()}))
    files.push_back(read_judgments(path));
  const Preset& eight = preset("qlora-vicuna-human");
  return gather_matches(files, rule, std::vector<std::string>(eight.systems.begin(), eight.systems.end()));
}

void check_ratings(const ModelReport& report, const std::map<std::string, double>& column, double margin) {
  REQUIRE(report.ratings.size() == column.size());
  for (const Rating& r : report.ratings) {
    INFO(r.system);
    CHECK(r.rating == Approx(column.at(r.system)).margin(margin));
  }
}

}  // namespace

TEST_CASE("Bradley Terry of the published tournaments does not need their files") {
  check_ratings(compute_strengths(matches_of(preset("qlora-vicuna-gpt4")), with(RatingModel::bt)),
                {{"gpt-4", 1366.3},
                 {"guanaco-65b", 1020.4},
                 {"guanaco-33b", 989.2},
                 {"vicuna-13b", 971.5},
                 {"gpt-3.5", 963.9},
                 {"guanaco-13b", 913.2},
                 {"bard", 899.2},
                 {"guanaco-7b", 876.3}},
                0.1);
  check_ratings(compute_strengths(matches_of(preset("qlora-vicuna-human")), with(RatingModel::bt)),
                {{"gpt-4", 1187.7},
                 {"guanaco-65b", 1023.6},
                 {"guanaco-33b", 1009.3},
                 {"vicuna-13b", 982.4},
                 {"gpt-3.5", 908.4},
                 {"guanaco-13b", 973.9},
                 {"bard", 904.2},
                 {"guanaco-7b", 1010.4}},
                0.1);
}

TEST_CASE("models of the released judgments fit as they did elsewhere", "[golden]") {
  Path folder = test::test_data() / "04_qlora_eval/ratings-gpt4/vicuna/pairwise";
  if (test::missing(folder)) return;
  Matches all = gathered(folder, VoteRule::each);
  ModelOptions options = with(RatingModel::bt);
  options.draws = 400;
  ModelReport bt = compute_strengths(all, options);
  CHECK(of(bt, "gpt-4").rating == Approx(1366.3).margin(0.1));
  CHECK(-bt.log_likelihood == Approx(2569.8).margin(0.1));
  CHECK(-compute_strengths(all, with(RatingModel::davidson)).log_likelihood == Approx(3818.8).margin(0.1));
  CHECK(-compute_strengths(all, with(RatingModel::rao_kupper)).log_likelihood == Approx(3830.9).margin(0.1));

  options.position = Position::per_judge;
  options.interval = Interval::bootstrap;
  ModelReport placed = compute_strengths(all, options);
  CHECK(-placed.log_likelihood == Approx(2377.9).margin(0.1));
  CHECK(of(placed, "gpt-4").rating == Approx(1395).margin(0.6));
  CHECK(placed.terms.at(0).value == Approx(118).margin(0.6));
  CHECK(*placed.terms.at(0).ci_lo > 100);
  for (const Rating& r : placed.ratings) {  // half widths of 27 to 47 points
    double half = (*r.ci_hi - *r.ci_lo) / 2;
    CHECK(half > 24);
    CHECK(half < 51);
  }
  options.cluster = Cluster::match;
  ModelReport narrow = compute_strengths(all, options);
  for (const Rating& r : narrow.ratings) CHECK(*r.se < 0.75 * *of(placed, r.system).se);
  options.interval = Interval::none;
  options.model = RatingModel::davidson;
  ModelReport davidson = compute_strengths(all, options);
  CHECK(-davidson.log_likelihood == Approx(3585.8).margin(0.1));
  CHECK(davidson.terms.at(0).value == Approx(145).margin(0.6));
  options.model = RatingModel::rao_kupper;
  CHECK(-compute_strengths(all, options).log_likelihood == Approx(3593.2).margin(0.1));
}

TEST_CASE("humans have no habit of place", "[golden]") {
  Path folder = test::test_data() / "04_qlora_eval/prd_human";
  if (test::missing(folder)) return;
  ModelOptions options = with(RatingModel::bt, Interval::sandwich);
  options.position = Position::shared;
  ModelReport report = compute_strengths(gathered(folder, VoteRule::majority), options);
  CHECK(report.matches == 2240);
  CHECK(*report.terms.at(0).ci_lo < 0);
  CHECK(*report.terms.at(0).ci_hi > 0);
  CHECK(of(report, "gpt-4").rating == Approx(1187.7).margin(1));
}
