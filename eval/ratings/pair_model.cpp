#include "eval/ratings/pair_model.h"

#include <cmath>
#include <limits>
#include <vector>

#include "core/base/check.h"
#include "core/base/names.h"

namespace qlora {

namespace {

// s(x) and log s(x) without overflow at either end.
struct Sigmoid {
  double p, q, log_p, log_q;  // s(x), s(-x) and their logarithms
  explicit Sigmoid(double x) {
    double e = std::exp(-std::fabs(x)), log_big = -std::log1p(e);
    double big = 1 / (1 + e), small = e * big;
    p = x >= 0 ? big : small;
    q = x >= 0 ? small : big;
    log_p = x >= 0 ? log_big : log_big + x;
    log_q = x >= 0 ? log_big - x : log_big;
  }
};

PairTerms bt_terms(const PerOutcome& w, double d) {
  Sigmoid s(d);
  double wins = w[2] + 0.5 * w[1], losses = w[0] + 0.5 * w[1];
  PairTerms out;
  out.log_p = wins * s.log_p + losses * s.log_q;
  out.d = wins * s.q - losses * s.p;
  out.dd = -(wins + losses) * s.p * s.q;
  return out;
}

// A tie has probability (exp(2t) - 1) s(d - t) s(-d - t), so that it counts as both sides' terms and one of
// t alone.
PairTerms rao_kupper_terms(const PerOutcome& w, double d, double t) {
  PairTerms out;
  if (!(t > 0)) {
    out.log_p = -std::numeric_limits<double>::infinity();
    return out;
  }
  Sigmoid first(d - t), second(-d - t);
  double wins = w[2] + w[1], losses = w[0] + w[1];
  double curve_first = wins * first.p * first.q, curve_second = losses * second.p * second.q;
  double gap = -std::expm1(-2 * t);  // 1 - exp(-2t)
  out.log_p = wins * first.log_p + losses * second.log_p + w[1] * (2 * t + std::log(gap));
  out.d = wins * first.q - losses * second.q;
  out.t = -wins * first.q - losses * second.q + w[1] * 2 / gap;
  out.dd = -curve_first - curve_second;
  out.dt = curve_first - curve_second;
  out.tt = -curve_first - curve_second - w[1] * 4 * (1 - gap) / (gap * gap);
  return out;
}

struct DavidsonShares {
  PerOutcome p;
  double log_sum;
  DavidsonShares(double d, double t) {
    double top = std::max(std::fabs(d) / 2, t);
    p = {std::exp(-d / 2 - top), std::exp(t - top), std::exp(d / 2 - top)};
    double sum = p[0] + p[1] + p[2];
    for (double& share : p) share /= sum;
    log_sum = top + std::log(sum);
  }
};

PairTerms davidson_terms(const PerOutcome& w, double d, double t) {
  DavidsonShares shares(d, t);
  const PerOutcome& p = shares.p;
  double all = w[0] + w[1] + w[2], mean = (p[2] - p[0]) / 2;
  PairTerms out;
  out.log_p = (w[2] - w[0]) * d / 2 + w[1] * t - all * shares.log_sum;
  out.d = (w[2] - w[0]) / 2 - all * mean;
  out.t = w[1] - all * p[1];
  out.dd = -all * ((p[2] + p[0]) / 4 - mean * mean);
  out.dt = all * mean * p[1];
  out.tt = -all * p[1] * (1 - p[1]);
  return out;
}

}  // namespace

RatingModel rating_model_from(const std::string& name) {
  for (RatingModel model : {RatingModel::bt, RatingModel::rao_kupper, RatingModel::davidson})
    if (rating_model_name(model) == name) return model;
  fail(ErrorKind::usage, "{}",
       unknown_name("model of ratings", name,
                    std::vector<std::string>{"elo", "bt", "rao-kupper", "davidson"}));
}

std::string rating_model_name(RatingModel model) {
  switch (model) {
    case RatingModel::bt:
      return "bt";
    case RatingModel::rao_kupper:
      return "rao-kupper";
    case RatingModel::davidson:
      return "davidson";
  }
  fail(ErrorKind::failure, "no such model of ratings");
}

bool has_tie_parameter(RatingModel model) {
  return model != RatingModel::bt;
}

PerOutcome outcome_probabilities(RatingModel model, double d, double t) {
  switch (model) {
    case RatingModel::bt: {
      Sigmoid s(d);
      return {s.q, 0, s.p};
    }
    case RatingModel::rao_kupper: {
      Sigmoid first(d - t), second(-d - t);
      return {second.p, std::expm1(2 * t) * first.p * second.p, first.p};
    }
    case RatingModel::davidson:
      return DavidsonShares(d, t).p;
  }
  fail(ErrorKind::failure, "no such model of ratings");
}

PairTerms pair_terms(RatingModel model, const PerOutcome& weight, double d, double t) {
  switch (model) {
    case RatingModel::bt:
      return bt_terms(weight, d);
    case RatingModel::rao_kupper:
      return rao_kupper_terms(weight, d, t);
    case RatingModel::davidson:
      return davidson_terms(weight, d, t);
  }
  fail(ErrorKind::failure, "no such model of ratings");
}

PairTerms outcome_terms(RatingModel model, Outcome outcome, double d, double t) {
  PerOutcome weight = {};
  weight[static_cast<size_t>(outcome)] = 1;
  return pair_terms(model, weight, d, t);
}

}  // namespace qlora
