#pragma once
// Ratings by maximum likelihood: Bradley-Terry, Rao-Kupper and Davidson (pair_model.h), with what the judges'
// habits are worth (being shown first, longer answers) fitted beside the systems' strengths, and with
// intervals of the data. Unlike online Elo they do not depend on an order of the matches, nor on a step K.
//
// Ratings are initial + scale * strength / ln(base), so that for Bradley-Terry a difference of 400 points is
// odds of 10 to 1, as with Elo.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eval/ratings/fit.h"
#include "eval/ratings/report.h"

namespace qlora {

// How the uncertainty of the data is found.
enum class Interval { none, bootstrap, sandwich };
Interval interval_from(const std::string& name);  // none | bootstrap | sandwich; throws Error(usage)

struct Anchor {
  std::string system;
  double rating = 0;
};

struct ModelOptions {
  RatingModel model = RatingModel::bt;
  bool drop_ties = false;  // before anything else; for bt only, whose ties are else half a win of each
  Position position = Position::none;
  bool length = false;          // fit what a longer answer is worth, from Match::length
  std::vector<Anchor> anchors;  // ratings that are given; empty: the mean of all is `initial`
  double initial = 1000, base = 10, scale = 400;
  Interval interval = Interval::bootstrap;
  Cluster cluster = Cluster::prompt;
  int64_t draws = 1000;  // of the bootstrap; for the sandwich, of the ranks (0: no ranks)
  uint64_t seed = 0;
};

// A fitted parameter that is not a rating.
struct Term {
  std::string name;  // "position", "position of JUDGE", "length", "tie threshold", "tie weight"
  std::string unit;  // "points", "points per standard deviation", or empty: Davidson's factor nu = exp(t)
  double value = 0;
  std::optional<double> se, ci_lo, ci_hi;
};

struct ModelReport : RatingReport {
  ModelOptions options;
  std::vector<Term> terms;
  double log_likelihood = 0;
  int64_t degenerate_draws = 0;  // of the bootstrap: without finite strengths, see spread.h
};

// Deterministic: depends on the matches, the options and the seed alone, for any number of threads.
//
// An interval is of what this estimator would give with endless prompts of the same kind. That is not quite
// the strength behind a single prompt: where prompts suit systems differently, win rates over all prompts are
// nearer to one half, and so are the strengths that explain them.
//
// Throws Error(usage) for options that do not fit the matches (unknown anchors with the nearest name; no
// prompts; no ties for a model of ties), Error(data) for win graphs without finite strengths (win_graph.h)
// and for data that the position, length or tie term explains without remainder.
ModelReport compute_strengths(const Matches&, const ModelOptions&);

}  // namespace qlora
