#include "eval/ratings/plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/base/check.h"

namespace qlora {

namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

class Svg {
 public:
  Svg(double width, double height, const std::string& title) {
    text_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:g} {1:g}\" width=\"{0:g}\" "
        "height=\"{1:g}\" "
        "font-family=\"sans-serif\" font-size=\"13\">\n<title>{2}</title>\n"
        "<rect width=\"{0:g}\" height=\"{1:g}\" fill=\"white\"/>\n",
        width, height, escaped(title));
    label(width / 2, 22, title, "middle", "black", 15);
  }
  void label(double x, double y, const std::string& text, const char* anchor, const char* colour = "black",
             int size = 13) {
    text_ += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" fill=\"{}\" font-size=\"{}\">{}</text>\n", x, y,
        anchor, colour, size, escaped(text));
  }
  void line(double x1, double y1, double x2, double y2, const char* colour, double width) {
    text_ += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" "
        "stroke-width=\"{:g}\"/>\n",
        x1, y1, x2, y2, colour, width);
  }
  void dot(double x, double y, double radius) {
    text_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:g}\" fill=\"#1f4e79\"/>\n", x, y, radius);
  }
  void box(double x, double y, double width, double height, const std::string& fill) {
    text_ += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" "
        "stroke=\"#dddddd\"/>\n",
        x, y, width, height, fill);
  }
  std::string take() { return std::move(text_) + "</svg>\n"; }

 private:
  std::string text_;
};

double label_width(size_t letters) {
  return 7.5 * static_cast<double>(letters) + 20;
}

size_t longest(const std::vector<std::string>& names) {
  size_t most = 0;
  for (const std::string& name : names) most = std::max(most, name.size());
  return most;
}

// A step of 1, 2 or 5 times a power of ten that gives four to ten marks.
double mark_step(double range) {
  double step = std::pow(10, std::floor(std::log10(range / 4)));
  for (double factor : {5.0, 2.0})
    if (range / (step * factor) >= 4) return step * factor;
  return step;
}

// From white at one half to full colour at 0 and 1.
std::string shade(double rate) {
  constexpr std::array<double, 3> kWin = {31, 78, 121}, kLoss = {197, 90, 17};
  const auto& full = rate >= 0.5 ? kWin : kLoss;
  double depth = std::min(1.0, 2 * std::fabs(rate - 0.5));
  std::array<int, 3> rgb = {};
  for (size_t i = 0; i < 3; ++i) rgb[i] = static_cast<int>(std::lround(255 + depth * (full[i] - 255)));
  return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

}  // namespace

std::string ratings_svg(const RatingReport& report, const std::string& title) {
  QLORA_CHECK(!report.ratings.empty(), usage, "no rating to draw");
  std::vector<std::string> names;
  double lo = report.ratings[0].rating, hi = lo;
  for (const Rating& r : report.ratings) {
    names.push_back(r.system);
    lo = std::min({lo, r.rating, r.ci_lo.value_or(r.rating)});
    hi = std::max({hi, r.rating, r.ci_hi.value_or(r.rating)});
  }
  double room = std::max(hi - lo, 1.0) * 0.05;
  lo -= room;
  hi += room;
  constexpr double kRow = 28, kTop = 44, kPlot = 480, kFigures = 150;
  double left = label_width(longest(names)), bottom = kTop + kRow * static_cast<double>(names.size());
  auto place = [&](double rating) { return left + (rating - lo) / (hi - lo) * kPlot; };
  Svg svg(left + kPlot + kFigures, bottom + 50, title);
  double step = mark_step(hi - lo);
  for (double mark = std::ceil(lo / step) * step; mark <= hi; mark += step) {
    svg.line(place(mark), kTop, place(mark), bottom, "#dddddd", 1);
    svg.label(place(mark), bottom + 18, fmt::format("{:g}", mark), "middle");
  }
  for (size_t i = 0; i < report.ratings.size(); ++i) {
    const Rating& r = report.ratings[i];
    double y = kTop + kRow * (static_cast<double>(i) + 0.5);
    svg.label(left - 10, y + 4, r.system, "end");
    std::string figures = fmt::format("{:.0f}", r.rating);
    if (r.ci_lo && r.ci_hi) {
      svg.line(place(*r.ci_lo), y, place(*r.ci_hi), y, "#1f4e79", 2);
      for (double end : {*r.ci_lo, *r.ci_hi}) svg.line(place(end), y - 5, place(end), y + 5, "#1f4e79", 2);
      figures += fmt::format(" ({:.0f} to {:.0f})", *r.ci_lo, *r.ci_hi);
    }
    svg.dot(place(r.rating), y, 4.5);
    svg.label(left + kPlot + 10, y + 4, figures, "start");
  }
  svg.label(left, bottom + 40, report.ci_method.empty() ? "no interval of the data" : report.ci_method,
            "start", "#555555", 11);
  return svg.take();
}

std::string win_rates_svg(const WinMatrix& matrix, const std::string& title) {
  QLORA_CHECK(!matrix.systems.empty(), usage, "no win rate to draw");
  constexpr double kCell = 64, kHeight = 36;
  auto n = static_cast<double>(matrix.systems.size());
  double left = label_width(longest(matrix.systems)), top = 44;
  double bottom = top + kHeight * n;
  Svg svg(left + kCell * n + 20, bottom + 50, title);
  for (size_t a = 0; a < matrix.systems.size(); ++a) {
    double y = top + kHeight * static_cast<double>(a);
    svg.label(left - 10, y + kHeight / 2 + 4, fmt::format("{} {}", a + 1, matrix.systems[a]), "end");
    for (size_t b = 0; b < matrix.systems.size(); ++b) {
      double x = left + kCell * static_cast<double>(b);
      const WinCell& cell = matrix.cells[a][b];
      bool empty = cell.games() == 0;
      svg.box(x, y, kCell, kHeight, empty ? "#f4f4f4" : shade(cell.rate()));
      if (empty) continue;
      bool dark = std::fabs(cell.rate() - 0.5) > 0.3;
      svg.label(x + kCell / 2, y + kHeight / 2 + 4, fmt::format("{:.2f}", cell.rate()), "middle",
                dark ? "white" : "black");
    }
  }
  for (size_t b = 0; b < matrix.systems.size(); ++b) {
    svg.label(left + kCell * (static_cast<double>(b) + 0.5), bottom + 18, fmt::format("{}", b + 1), "middle");
  }
  svg.label(left, bottom + 36, "row against column: (wins + ties / 2) / matches", "start", "#555555", 11);
  return svg.take();
}

}  // namespace qlora
