#pragma once
// Maximum likelihood of the models of pair_model.h over a whole tournament, by Newton's method; and the
// matrices that its uncertainty is made of. Works on counts: matches that look alike to the model share a
// cell.
//
// Parameters, in natural units (log odds), in this order: the strength of each system; what being shown first
// is worth, one for all judges or one for each; what a longer answer is worth; the model's t for ties. For a
// match, d = strength[first] - strength[second] + position[judge] (where the order is known) + length * x.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/ratings/pair_model.h"

namespace qlora {

enum class Position { none, shared, per_judge };
Position position_from(const std::string& name);  // none | shared | judge; throws Error(usage)

struct Cell {
  int32_t first = 0, second = 0;
  int32_t position = -1;  // parameter, or -1
  double length = 0;      // x: (a - b) / (a + b) in standard deviations (about 0) over all matches
};

struct Design {
  RatingModel model = RatingModel::bt;
  size_t systems = 0, parameters = 0;
  int32_t position_begin = -1, positions = 0;  // parameters
  int32_t length = -1, tie = -1;               // parameters, or -1
  double length_unit = 1;                      // the standard deviation that lengths were divided by
  std::vector<Cell> cells;
  std::vector<int32_t> cell_of_match;
  std::vector<std::optional<double>>
      fixed;  // [systems]: strengths that are not fitted; none: their mean is 0

  bool anchored() const;
};

// `judges` is their number. Throws Error(usage) when a position or length term has nothing to be fitted from,
// Error(data) for a length that is no number.
Design make_design(RatingModel, std::span<const Match>, size_t systems, size_t judges, Position, bool length,
                   std::vector<std::optional<double>> fixed = {});

// Weights of the cells' outcomes: how often each happened.
std::vector<PerOutcome> count_outcomes(const Design&, std::span<const Match>);

struct Fit {
  std::vector<double> parameters;
  double log_likelihood = 0;
  bool converged = false;  // false: no maximum; `parameters` is where the search had got to
};

// From `start` (default: all systems alike). `ridge` subtracts ridge/2 times the squares of all parameters
// but t, for data that have no maximum without it.
Fit fit(const Design&, std::span<const PerOutcome> weights, std::span<const double> start = {},
        double ridge = 0);

// Square matrices [parameters, parameters], row by row; zero for what is fixed. Without anchors the strengths
// vary about their mean.
using Square = std::vector<double>;
// The inverse of the negative Hessian: the covariance if matches were independent and the model true.
Square inverse_information(const Design&, std::span<const PerOutcome> weights,
                           std::span<const double> parameters, double ridge = 0);
// The cluster-robust sandwich (Liang & Zeger 1986) H^-1 (sum_c g_c g_c') H^-1 G/(G - 1), where g_c sums the
// scores of cluster c's matches and G is the number of clusters. REQUIRES: G >= 2.
Square sandwich(const Design&, std::span<const Match>, std::span<const int32_t> cluster_of_match,
                int32_t clusters, std::span<const double> parameters);

// d of a cell.
double difference(const Design&, const Cell&, std::span<const double> parameters);

}  // namespace qlora
