#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <tuple>

#include "core/base/check.h"
#include "core/base/parallel.h"
#include "core/base/philox.h"
#include "core/base/test_data.h"
#include "eval/judge/judgments.h"
#include "eval/ratings/elo.h"
#include "eval/ratings/presets.h"

using namespace qlora;
using Catch::Contains;

namespace {

const std::vector<std::string> kTwo = {"red", "blue"};

const Rating& of(const EloReport& report, const std::string& system) {
  for (const Rating& r : report.ratings)
    if (r.system == system) return r;
  throw std::runtime_error("no " + system);
}

// Five systems of different strength, 40 prompts, ties and all.
std::vector<Match> some_matches(int count = 600) {
  std::vector<Match> matches;
  PhiloxStream random(3);
  for (int i = 0; i < count; ++i) {
    auto a = static_cast<int32_t>(random.below(5)), b = static_cast<int32_t>((a + 1 + random.below(4)) % 5);
    float strength = 0.5f + 0.08f * static_cast<float>(b - a), drawn = random.uniform();
    Outcome outcome = drawn < 0.15f                 ? Outcome::tie
                      : random.uniform() < strength ? Outcome::first_wins
                                                    : Outcome::second_wins;
    matches.push_back({a, b, outcome, i % 40});
  }
  return matches;
}
const std::vector<std::string> kFive = {"a", "b", "c", "d", "e"};

std::vector<double> values(const EloReport& report) {
  std::vector<double> all;
  for (const Rating& r : report.ratings)
    for (double v : {r.rating, r.order_sd, r.mc_error, r.ci_lo.value_or(0), r.ci_hi.value_or(0)})
      all.push_back(v);
  return all;
}

// The columns of the paper's tables, as means over a million orders.
using Column = std::map<std::string, double>;
const Column kGpt4 = {{"gpt-4", 1347.98},     {"guanaco-65b", 1022.46}, {"guanaco-33b", 991.57},
                      {"vicuna-13b", 974.01}, {"gpt-3.5", 966.45},      {"guanaco-13b", 916.04},
                      {"bard", 902.12},       {"guanaco-7b", 879.37}};
const Column kHuman = {{"gpt-4", 1176.39},       {"guanaco-65b", 1023.25}, {"guanaco-7b", 1010.60},
                       {"guanaco-33b", 1009.49}, {"vicuna-13b", 983.58},   {"guanaco-13b", 975.34},
                       {"gpt-3.5", 912.67},      {"bard", 908.68}};

void check_column(const EloReport& report, const Column& column) {
  REQUIRE(report.ratings.size() == column.size());
  for (const Rating& r : report.ratings) {
    INFO(r.system);
    CHECK(r.rating == Approx(column.at(r.system)).margin(0.4));
  }
}

// How often each outcome happened between each two systems.
using Outcomes = std::map<std::tuple<std::string, std::string, Outcome>, int>;
Outcomes outcomes(const std::vector<std::string>& systems, const std::vector<Match>& matches) {
  Outcomes counts;
  for (const Match& m : matches)
    ++counts[{systems[static_cast<size_t>(m.first)], systems[static_cast<size_t>(m.second)], m.outcome}];
  return counts;
}
std::vector<std::string> systems_of(const Preset& p) {
  return {p.systems.begin(), p.systems.end()};
}

EloOptions paper_options() {
  EloOptions options;
  options.k = 4;
  return options;
}

}  // namespace

TEST_CASE("ratings of two systems have their closed form") {
  EloOptions options;
  options.orders = 3;
  EloReport one = compute_elo(kTwo, std::vector<Match>{{0, 1, Outcome::first_wins}}, options);
  CHECK(of(one, "red").rating == Approx(1016).epsilon(1e-12));
  CHECK(of(one, "blue").rating == Approx(984).epsilon(1e-12));
  CHECK(of(one, "red").order_sd == Approx(0).margin(1e-5));
  CHECK(of(one, "red").wins == 1);
  CHECK(of(one, "blue").losses == 1);
  CHECK(one.ratings[0].system == "red");

  EloReport tie = compute_elo(kTwo, std::vector<Match>{{0, 1, Outcome::tie}}, options);
  CHECK(of(tie, "red").rating == 1000);
  CHECK(of(tie, "red").ties == 1);

  // The same result over and over: every order is alike, and the recursion can be written down.
  options.k = 10;
  std::vector<Match> wins(300, Match{1, 0, Outcome::first_wins});
  double difference = 0;
  for (int i = 0; i < 300; ++i) difference += 2 * 10 * (1 - 1 / (1 + std::pow(10, -difference / 400)));
  EloReport many = compute_elo(kTwo, wins, options);
  CHECK(of(many, "blue").rating == Approx(1000 + difference / 2).margin(1e-3));
  CHECK(of(many, "blue").order_sd == Approx(0).margin(1e-4));
  CHECK(of(many, "blue").games == 300);

  // Other base and scale: with base e and scale 1 the difference is a log odds.
  options.initial = 0;
  options.base = std::exp(1);
  options.scale = 1;
  options.k = 0.5;
  EloReport natural = compute_elo(
      kTwo, std::vector<Match>{{0, 1, Outcome::first_wins}, {0, 1, Outcome::first_wins}}, options);
  double once = 0.25, twice = once + 0.5 * (1 - 1 / (1 + std::exp(-0.5)));
  CHECK(of(natural, "red").rating == Approx(twice).margin(1e-6));
}

TEST_CASE("ratings sum to nothing gained and do not depend on names") {
  std::vector<Match> matches = some_matches();
  EloOptions options;
  options.orders = 200;
  EloReport report = compute_elo(kFive, matches, options);
  double sum = 0;
  for (const Rating& r : report.ratings) sum += r.rating;
  CHECK(sum == Approx(5000).epsilon(1e-12));
  CHECK(report.ratings.front().system == "a");
  CHECK(report.prompts == 40);

  // Systems renumbered: the same ratings, bit for bit.
  std::vector<int32_t> place = {3, 0, 4, 1, 2};
  std::vector<std::string> names(5);
  for (size_t i = 0; i < 5; ++i) names[static_cast<size_t>(place[i])] = kFive[i];
  for (Match& m : matches) {
    m.first = place[static_cast<size_t>(m.first)];
    m.second = place[static_cast<size_t>(m.second)];
  }
  EloReport again = compute_elo(names, matches, options);
  for (const Rating& r : report.ratings) {
    CHECK(of(again, r.system).rating == r.rating);
    CHECK(of(again, r.system).order_sd == r.order_sd);
  }
  // A player's games are counted from both sides.
  for (const Rating& r : report.ratings) CHECK(r.games == r.wins + r.losses + r.ties);
}

TEST_CASE("ratings do not depend on the number of threads") {
  std::vector<Match> matches = some_matches();
  EloOptions options;
  options.orders = 1001;  // parts of unequal size
  options.bootstrap = 20;
  int before = thread_count();
  std::vector<std::vector<double>> results;
  for (int threads : {1, 2, 3}) {
    set_thread_count(threads);
    results.push_back(values(compute_elo(kFive, matches, options)));
  }
  set_thread_count(before);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
  options.seed = 1;
  CHECK(values(compute_elo(kFive, matches, options)) != results[0]);
}

TEST_CASE("the spread over orders shrinks with their number and the interval of the data does not") {
  std::vector<Match> matches = some_matches();
  EloOptions few, many;
  few.orders = 100;
  many.orders = 3000;
  few.bootstrap = many.bootstrap = 200;
  EloReport a = compute_elo(kFive, matches, few), b = compute_elo(kFive, matches, many);
  for (const std::string& system : kFive) {
    CHECK(of(a, system).order_sd == Approx(of(b, system).order_sd).epsilon(0.3));
    CHECK(of(b, system).mc_error == Approx(of(b, system).order_sd / std::sqrt(3000)));
    CHECK(of(a, system).mc_error > 4 * of(b, system).mc_error);
    double wide = *of(b, system).ci_hi - *of(b, system).ci_lo;
    CHECK(*of(a, system).ci_hi - *of(a, system).ci_lo == Approx(wide).epsilon(0.01));
    CHECK(wide > 10 * of(b, system).mc_error);
    CHECK(*of(b, system).ci_lo < of(b, system).rating);
    CHECK(*of(b, system).ci_hi > of(b, system).rating);
  }
  CHECK_THAT(b.ci_method, Contains("200 times"));
}

TEST_CASE("whole prompts are drawn again and not single matches") {
  // One prompt: every resample is the same set of matches, so that the interval is only what 32 orders leave.
  std::vector<Match> matches = some_matches(60);
  EloOptions options;
  options.orders = 2000;
  options.bootstrap = 100;
  options.k = 4;
  double wide_before = 0, wide_after = 0;
  for (const Rating& r : compute_elo(kFive, matches, options).ratings) wide_before += *r.ci_hi - *r.ci_lo;
  for (Match& m : matches) m.prompt = 5;
  for (const Rating& r : compute_elo(kFive, matches, options).ratings) wide_after += *r.ci_hi - *r.ci_lo;
  CHECK(wide_after < 0.1 * wide_before);
}

TEST_CASE("impossible ratings are refused") {
  std::vector<Match> match = {{0, 1, Outcome::tie}};
  EloOptions options;
  CHECK_THROWS_WITH(compute_elo(kTwo, std::vector<Match>{}, options), Contains("no match"));
  CHECK_THROWS_WITH(compute_elo(kTwo, std::vector<Match>{{0, 2, Outcome::tie}}, options),
                    Contains("systems 0 and 2 of 2"));
  CHECK_THROWS_WITH(compute_elo(kTwo, std::vector<Match>{{1, 1, Outcome::tie}}, options),
                    Contains("against itself"));
  options.bootstrap = 100;
  CHECK_THROWS_WITH(compute_elo(kTwo, match, options), Contains("prompt"));
  for (double k : {0.0, -4.0, std::nan("")}) {
    EloOptions bad;
    bad.k = k;
    CHECK_THROWS_WITH(compute_elo(kTwo, match, bad), Contains("K must be"));
  }
  EloOptions none;
  none.orders = 0;
  CHECK_THROWS_AS(compute_elo(kTwo, match, none), Error);
}

TEST_CASE("orders drawn with replacement have the same mean and more noise") {
  std::vector<Match> matches = some_matches();
  EloOptions options;
  options.orders = 4000;
  options.k = 4;
  EloReport shuffled = compute_elo(kFive, matches, options);
  options.rounds = Rounds::bootstrap;
  EloReport drawn = compute_elo(kFive, matches, options);
  int before = thread_count();
  set_thread_count(3);
  CHECK(values(compute_elo(kFive, matches, options)) == values(drawn));
  set_thread_count(before);
  for (const Rating& r : drawn.ratings) {
    CHECK(r.rating == Approx(of(shuffled, r.system).rating).margin(5 * r.mc_error));
    CHECK(r.order_sd > of(shuffled, r.system).order_sd);
  }
}

TEST_CASE("ties can be left out") {
  std::vector<Match> matches = some_matches(), decisive;
  for (const Match& m : matches)
    if (m.outcome != Outcome::tie) decisive.push_back(m);
  EloOptions options;
  options.orders = 100;
  EloReport expected = compute_elo(kFive, decisive, options);
  options.drop_ties = true;
  EloReport dropped = compute_elo(kFive, matches, options);
  CHECK(values(dropped) == values(expected));
  CHECK(of(dropped, "a").ties == 0);
  std::vector<Match> ties(3, Match{0, 1, Outcome::tie});
  CHECK_THROWS_WITH(compute_elo(kFive, ties, options), Contains("all 3 matches are ties"));
}

TEST_CASE("single matches can be drawn again instead of prompts") {
  std::vector<Match> matches = some_matches();
  for (Match& m : matches) m.prompt = -1;
  EloOptions options;
  options.orders = 200;
  options.bootstrap = 200;
  options.cluster = Cluster::match;
  EloReport report = compute_elo(kFive, matches, options);
  CHECK_THAT(report.ci_method, Contains("single matches"));
  for (const Rating& r : report.ratings) {
    CHECK(*r.ci_lo < r.rating);
    CHECK(*r.ci_hi > r.rating);
    CHECK(*r.se > r.mc_error);
    CHECK(r.rank_probability.size() == 5);
  }
  CHECK(report.above[0][4] > report.above[4][0]);
}

TEST_CASE("the presets give the columns of the paper") {
  EloReport gpt4 = compute_preset(preset("qlora-vicuna-gpt4"), EloOptions{});
  check_column(gpt4, kGpt4);
  CHECK(gpt4.matches == 4467);
  CHECK(gpt4.options.k == 4);
  CHECK(of(gpt4, "guanaco-7b").invalid == 10);
  CHECK_THAT(gpt4.note, Contains("no confidence interval") && Contains("artidoro/qlora"));
  EloReport human = compute_preset(preset("qlora-vicuna-human"), EloOptions{});
  check_column(human, kHuman);
  CHECK(human.matches == 2240);

  EloOptions options;
  options.k = 32;
  CHECK(of(compute_preset(preset("qlora-vicuna-gpt4"), options, true), "gpt-4").rating ==
        Approx(1375.2).margin(1.4));
  options.bootstrap = 100;
  CHECK_THROWS_WITH(compute_preset(preset("qlora-vicuna-gpt4"), options), Contains("no interval"));
  for (const Preset& p : presets()) {
    INFO(p.name);
    if (p.counts.empty()) CHECK_THROWS_WITH(matches_of(p), Contains("judgment files"));
    CHECK((p.model == "elo" || p.model == "bt"));
  }
  CHECK(preset("qlora-oa-gpt4").k == 32);
  CHECK_THROWS_WITH(preset("qlora-vicuna-gtp4"), Contains("did you mean `qlora-vicuna-gpt4`"));
}

TEST_CASE("the sample tournament can be rated") {
  std::string folder = test::source_folder() + "/datasets/samples/judgments";
  std::vector<JudgmentFile> files;
  for (const Path& path : find_judgment_files(std::vector<std::string>{folder}))
    files.push_back(read_judgments(path));
  Matches matches = gather_matches(files, VoteRule::each);
  CHECK(matches.systems.size() == 3);
  CHECK(matches.rows == 120);
  CHECK(matches.invalid_rows == 1);
  EloOptions options;
  options.bootstrap = 100;
  EloReport report = rate(matches, options);
  CHECK(report.prompts == 20);
  CHECK(report.ratings.front().system == "tutor");
  CHECK(of(report, "tutor").invalid == 0);
  CHECK(of(report, "terse").invalid == 1);
}

TEST_CASE("the released judgments of GPT-4 give the column of the paper", "[golden]") {
  Path folder = test::test_data() / "04_qlora_eval/ratings-gpt4/vicuna/pairwise";
  if (test::missing(folder)) return;
  std::vector<JudgmentFile> files;
  for (const Path& path : find_judgment_files(std::vector<std::string>{folder.string()}))
    files.push_back(read_judgments(path));
  Matches matches = gather_matches(files, VoteRule::each);
  CHECK(matches.rows == 4480);
  CHECK(matches.invalid_rows == 13);
  EloOptions options = paper_options();
  options.bootstrap = 500;
  EloReport report = compute_elo(matches.systems, matches.matches, options);
  check_column(report, kGpt4);
  CHECK(report.matches == 4467);
  CHECK(report.prompts == 80);
  CHECK(of(report, "guanaco-7b").order_sd == Approx(13.07).margin(0.4));
  // The interval that the paper leaves out: half widths of 30 to 36, not of 1.
  for (const Rating& r : report.ratings) {
    INFO(r.system);
    CHECK((*r.ci_hi - *r.ci_lo) / 2 > 25);
    CHECK((*r.ci_hi - *r.ci_lo) / 2 < 42);
  }

  const Preset& counts = preset("qlora-vicuna-gpt4");
  CHECK(outcomes(matches.systems, matches.matches) ==
        outcomes(systems_of(counts), matches_of(counts).matches));
}

TEST_CASE("the human votes give the column of the paper", "[golden]") {
  Path folder = test::test_data() / "04_qlora_eval/prd_human";
  if (test::missing(folder)) return;
  std::vector<JudgmentFile> files;
  for (const Path& path : find_judgment_files(std::vector<std::string>{folder.string()}))
    files.push_back(read_judgments(path));
  std::vector<std::string> eight;
  for (const auto& [name, rating] : kHuman) eight.push_back(name);
  Matches matches = gather_matches(files, VoteRule::majority, eight);
  CHECK(matches.matches.size() == 2240);
  check_column(compute_elo(matches.systems, matches.matches, paper_options()), kHuman);
  const Preset& counts = preset("qlora-vicuna-human");
  CHECK(outcomes(matches.systems, matches.matches) ==
        outcomes(systems_of(counts), matches_of(counts).matches));
  CHECK(gather_matches(files, VoteRule::each, eight).matches.size() == 6720);
}
