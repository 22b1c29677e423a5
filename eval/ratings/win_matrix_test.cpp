#include "eval/ratings/win_matrix.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "eval/ratings/plots.h"
#include "eval/ratings/published.h"
#include "eval/ratings/simulated_tournament.h"

using namespace qlora;
using Catch::Contains;

namespace {

size_t count_of(const std::string& text, const std::string& word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("a win matrix counts both orders of a pair") {
  Matches all;
  all.systems = {"b", "a", "idle"};
  all.judges = {"judge"};
  all.matches = {{0, 1, Outcome::first_wins},
                 {1, 0, Outcome::second_wins},
                 {0, 1, Outcome::tie},
                 {1, 0, Outcome::first_wins}};
  WinMatrix m = win_matrix(all);
  REQUIRE(m.systems == std::vector<std::string>{"b", "a", "idle"});
  const WinCell &there = m.cells[0][1], &back = m.cells[1][0];
  CHECK(there.wins == 2);
  CHECK(there.losses == 1);
  CHECK(there.ties == 1);
  CHECK(there.rate() == Approx(2.5 / 4));
  CHECK(there.net() == Approx(0.25));
  CHECK(there.decisive() == Approx(2.0 / 3));
  CHECK(back.net() == Approx(-0.25));
  CHECK(back.rate() == Approx(1 - there.rate()));
  CHECK(there.wilson().lo == Approx(1 - back.wilson().hi));
  CHECK(m.cells[0][2].games() == 0);
  CHECK_FALSE(m.mean_rate[2].has_value());
  CHECK(*m.mean_rate[0] == Approx(0.625));
}

TEST_CASE("figures hold every system and close their elements") {
  Matches all = simulated_tournament({}, 2);
  all.systems[0] = "a < b & \"c\"";
  WinMatrix m = win_matrix(all);
  std::string heat = win_rates_svg(m, "title");
  CHECK(count_of(heat, "<rect") == 1 + 64);
  CHECK_THAT(heat, Contains("a &lt; b &amp; &quot;c&quot;") && !Contains("a < b"));
  RatingReport report;
  for (const std::string& system : all.systems) {
    Rating rating;
    rating.system = system;
    rating.rating = 1000 + 10 * static_cast<double>(report.ratings.size());
    if (report.ratings.size() % 2 == 0) {
      rating.ci_lo = rating.rating - 30;
      rating.ci_hi = rating.rating + 30;
    }
    report.ratings.push_back(rating);
  }
  std::string plot = ratings_svg(report, "title");
  CHECK(count_of(plot, "<circle") == 8);
  CHECK_THAT(plot, Contains("1000 (970 to 1030)") && Contains("no interval of the data"));
  for (const std::string& svg : {heat, plot}) {
    CHECK(svg.substr(0, 4) == "<svg");
    CHECK(svg.substr(svg.size() - 7) == "</svg>\n");
    CHECK(count_of(svg, "<text") == count_of(svg, "</text>"));
    CHECK(count_of(svg, "nan") == 0);
  }
  for (Rating& rating : report.ratings) rating.ci_lo = rating.ci_hi = rating.rating = 1000;
  CHECK(count_of(ratings_svg(report, "all alike"), "nan") == 0);
}

TEST_CASE("the two transposed cells of the published table are named") {
  std::vector<std::string> systems;
  for (const MedianRank& row : qlora_median_ranks()) systems.emplace_back(row.system);
  for (const PublishedColumn& column : qlora_table_7()) {
    int printed = 0, meant = 0, transposed = 0;
    for (const ComparedCell& cell : compare_column(systems, &column, nullptr)) {
      CHECK_FALSE(cell.ours.has_value());
      printed += cell.printed.value_or(0);
      meant += cell.meant.value_or(0);
      transposed += cell.transposed() ? 1 : 0;
    }
    bool vicuna = column.heading != "OA, GPT-4";
    CHECK(transposed == (vicuna ? 1 : 0));
    CHECK(meant == (vicuna ? 7999 : 7000));
    CHECK((printed != meant) == vicuna);
  }
}
