#include "eval/ratings/fit.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "core/base/check.h"
#include "core/base/names.h"

namespace qlora {

namespace {

using Vector = Eigen::VectorXd;
using Matrix = Eigen::MatrixXd;
using Index = Eigen::Index;

// The parameters that a cell's d is the sum of, with their factors.
struct Parts {
  int count = 0;
  Index at[4];
  double factor[4];
  void add(int32_t parameter, double by) {
    at[count] = parameter;
    factor[count++] = by;
  }
  Parts(const Design& design, const Cell& cell) {
    add(cell.first, 1);
    add(cell.second, -1);
    if (cell.position >= 0) add(cell.position, 1);
    if (design.length >= 0) add(design.length, cell.length);
  }
};

// The log-likelihood at a point, its gradient and its negative Hessian.
class Likelihood {
 public:
  Likelihood(const Design& design, std::span<const PerOutcome> weights, double ridge)
      : design_(design), weights_(weights), ridge_(ridge), size_(static_cast<Index>(design.parameters)) {
    for (const Cell& cell : design.cells) parts_.emplace_back(design, cell);
  }

  void at(const Vector& x) {
    value = 0;
    gradient.setZero(size_);
    information.setZero(size_, size_);
    double t = design_.tie >= 0 ? x[design_.tie] : 0;
    for (size_t c = 0; c < parts_.size(); ++c) {
      const PerOutcome& w = weights_[c];
      if (w[0] + w[1] + w[2] == 0) continue;
      const Parts& parts = parts_[c];
      double d = 0;
      for (int i = 0; i < parts.count; ++i) d += parts.factor[i] * x[parts.at[i]];
      add(parts, pair_terms(design_.model, w, d, t));
    }
    for (Index i = 0; ridge_ > 0 && i < size_; ++i) {
      if (i == design_.tie) continue;
      value -= ridge_ / 2 * x[i] * x[i];
      gradient[i] -= ridge_ * x[i];
      information(i, i) += ridge_;
    }
    pin();
  }

  double value = 0;
  Vector gradient;
  Matrix information;

 private:
  void add(const Parts& parts, const PairTerms& terms) {
    value += terms.log_p;
    for (int i = 0; i < parts.count; ++i) {
      gradient[parts.at[i]] += parts.factor[i] * terms.d;
      for (int j = 0; j < parts.count; ++j)
        information(parts.at[i], parts.at[j]) -= parts.factor[i] * parts.factor[j] * terms.dd;
      if (design_.tie < 0) continue;
      information(parts.at[i], design_.tie) -= parts.factor[i] * terms.dt;
      information(design_.tie, parts.at[i]) -= parts.factor[i] * terms.dt;
    }
    if (design_.tie < 0) return;
    gradient[design_.tie] += terms.t;
    information(design_.tie, design_.tie) -= terms.tt;
  }

  // Takes what is fixed out of the equations.
  void pin() {
    for (size_t s = 0; s < design_.fixed.size(); ++s) {
      if (!design_.fixed[s]) continue;
      auto i = static_cast<Index>(s);
      gradient[i] = 0;
      information.row(i).setZero();
      information.col(i).setZero();
      information(i, i) = 1;
    }
  }

  const Design& design_;
  std::span<const PerOutcome> weights_;
  double ridge_;
  Index size_;
  std::vector<Parts> parts_;
};

// Shifting all strengths changes nothing. Without anchors this direction, the unit vector u, is given the
// curvature `c`: H + c uu' has the inverse pinv(H) + uu'/c (of a ridge r: pinv(H) + uu'/(c + r)), and a step
// from a point of mean 0 has mean 0.
double hold_mean(const Design& design, Matrix& information) {
  if (design.anchored()) return 0;
  auto n = static_cast<Index>(design.systems);
  double c = std::max(information.diagonal().head(n).mean(), 1e-300);
  information.topLeftCorner(n, n).array() += c / static_cast<double>(n);
  return c;
}

Matrix inverse(const Design& design, Matrix information, double ridge) {
  double c = hold_mean(design, information);
  Eigen::LDLT<Matrix> factors(information);
  Matrix out = factors.solve(Matrix::Identity(information.rows(), information.cols()));
  auto n = static_cast<Index>(design.systems);
  if (c > 0) out.topLeftCorner(n, n).array() -= 1 / ((c + ridge) * static_cast<double>(n));
  for (size_t s = 0; s < design.fixed.size(); ++s) {
    if (!design.fixed[s]) continue;
    out.row(static_cast<Index>(s)).setZero();
    out.col(static_cast<Index>(s)).setZero();
  }
  return out;
}

Square flat(const Matrix& m) {
  Square out(static_cast<size_t>(m.size()));
  Eigen::Map<Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(out.data(), m.rows(),
                                                                                     m.cols()) = m;
  return out;
}

Vector start_point(const Design& design, std::span<const double> start) {
  std::vector<double> x(start.begin(), start.end());
  if (start.empty()) {
    x.resize(design.parameters);
    if (design.model == RatingModel::rao_kupper) x[static_cast<size_t>(design.tie)] = 0.5;
  }
  for (size_t s = 0; s < design.fixed.size(); ++s)
    if (design.fixed[s]) x[s] = *design.fixed[s];
  return Eigen::Map<const Vector>(x.data(), static_cast<Index>(x.size()));
}

// The x of each match: lengths in their standard deviations. Not centred: a match told from its other side
// must give the opposite.
double length_deviation(std::span<const Match> matches) {
  double squares = 0;
  for (const Match& m : matches) {
    QLORA_CHECK(std::isfinite(m.length), data, "a match has a difference of lengths that is no number");
    squares += static_cast<double>(m.length) * m.length;
  }
  QLORA_CHECK(squares > 0, usage,
              "length control needs the lengths of the answers, and some that differ; give --answers FILES");
  return std::sqrt(squares / static_cast<double>(matches.size()));
}

}  // namespace

Position position_from(const std::string& name) {
  if (name == "none") return Position::none;
  if (name == "shared") return Position::shared;
  if (name == "judge") return Position::per_judge;
  fail(ErrorKind::usage, "{}",
       unknown_name("position term", name, std::vector<std::string>{"none", "shared", "judge"}));
}

bool Design::anchored() const {
  return std::any_of(fixed.begin(), fixed.end(), [](const auto& value) { return value.has_value(); });
}

Design make_design(RatingModel model, std::span<const Match> matches, size_t systems, size_t judges,
                   Position position, bool length, std::vector<std::optional<double>> fixed) {
  Design design;
  design.model = model;
  design.systems = systems;
  design.fixed = fixed.empty() ? std::vector<std::optional<double>>(systems) : std::move(fixed);
  auto next = static_cast<int32_t>(systems);
  if (position != Position::none) {
    design.position_begin = next;
    design.positions = position == Position::shared ? 1 : static_cast<int32_t>(judges);
    next += design.positions;
  }
  if (length) {
    design.length = next++;
    design.length_unit = length_deviation(matches);
  }
  if (has_tie_parameter(model)) design.tie = next++;
  design.parameters = static_cast<size_t>(next);

  std::vector<uint8_t> shown(static_cast<size_t>(design.positions));
  std::map<std::tuple<int32_t, int32_t, int32_t, double>, int32_t> known;
  for (const Match& m : matches) {
    Cell cell{m.first, m.second, -1, length ? m.length / design.length_unit : 0};
    if (design.positions > 0 && m.order_known) {
      int32_t place = design.positions == 1 ? 0 : m.judge;
      shown[static_cast<size_t>(place)] = 1;
      cell.position = design.position_begin + place;
    }
    auto [it, fresh] = known.try_emplace({cell.first, cell.second, cell.position, cell.length},
                                         static_cast<int32_t>(design.cells.size()));
    if (fresh) design.cells.push_back(cell);
    design.cell_of_match.push_back(it->second);
  }
  QLORA_CHECK(std::find(shown.begin(), shown.end(), 0) == shown.end(), usage,
              "a position term needs matches of which it is known who was shown first; use --position none");
  return design;
}

std::vector<PerOutcome> count_outcomes(const Design& design, std::span<const Match> matches) {
  std::vector<PerOutcome> weights(design.cells.size(), PerOutcome{});
  for (size_t i = 0; i < matches.size(); ++i)
    weights[static_cast<size_t>(design.cell_of_match[i])][static_cast<size_t>(matches[i].outcome)] += 1;
  return weights;
}

double difference(const Design& design, const Cell& cell, std::span<const double> parameters) {
  Parts parts(design, cell);
  double d = 0;
  for (int i = 0; i < parts.count; ++i) d += parts.factor[i] * parameters[static_cast<size_t>(parts.at[i])];
  return d;
}

Fit fit(const Design& design, std::span<const PerOutcome> weights, std::span<const double> start,
        double ridge) {
  // Log odds of 40 are certainty in 64 bits: a parameter that gets there has no finite maximum.
  constexpr double kEndless = 40, kSettled = 1e-9;
  constexpr int kMaxSteps = 200, kMaxHalvings = 40;
  Likelihood likelihood(design, weights, ridge);
  Vector x = start_point(design, start);
  likelihood.at(x);
  Fit out;
  for (int step = 0; step < kMaxSteps && !out.converged; ++step) {
    Matrix information = likelihood.information;
    hold_mean(design, information);
    Eigen::LLT<Matrix> factors(information);
    if (factors.info() != Eigen::Success) break;
    Vector move = factors.solve(likelihood.gradient);
    if (!move.allFinite()) break;
    double before = likelihood.value, size = move.lpNorm<Eigen::Infinity>();
    // The likelihood is concave, so that a short enough step goes up; rounding alone may hide it at the end.
    double least = before - 1e-12 * std::fabs(before);
    int halvings = 0;
    for (; halvings <= kMaxHalvings; ++halvings, move /= 2) {
      likelihood.at(x + move);
      if (likelihood.value >= least) break;
    }
    if (halvings > kMaxHalvings) break;
    x += move;
    out.converged = size < kSettled;
    if (x.lpNorm<Eigen::Infinity>() > kEndless) break;
  }
  out.parameters.assign(x.data(), x.data() + x.size());
  out.log_likelihood = likelihood.value;
  return out;
}

Square inverse_information(const Design& design, std::span<const PerOutcome> weights,
                           std::span<const double> parameters, double ridge) {
  Likelihood likelihood(design, weights, ridge);
  likelihood.at(Eigen::Map<const Vector>(parameters.data(), static_cast<Index>(parameters.size())));
  return flat(inverse(design, likelihood.information, ridge));
}

Square sandwich(const Design& design, std::span<const Match> matches,
                std::span<const int32_t> cluster_of_match, int32_t clusters,
                std::span<const double> parameters) {
  std::vector<PerOutcome> weights = count_outcomes(design, matches);
  Likelihood likelihood(design, weights, 0);
  likelihood.at(Eigen::Map<const Vector>(parameters.data(), static_cast<Index>(parameters.size())));
  Matrix bread = inverse(design, likelihood.information, 0);

  auto size = static_cast<Index>(design.parameters);
  Matrix scores = Matrix::Zero(size, clusters);
  double t = design.tie >= 0 ? parameters[static_cast<size_t>(design.tie)] : 0;
  std::vector<PairTerms> terms(design.cells.size() * 3);  // matches of one cell and outcome score alike
  for (size_t c = 0; c < design.cells.size(); ++c)
    for (size_t outcome = 0; outcome < 3; ++outcome)
      terms[c * 3 + outcome] = outcome_terms(design.model, static_cast<Outcome>(outcome),
                                             difference(design, design.cells[c], parameters), t);
  for (size_t i = 0; i < matches.size(); ++i) {
    auto cell = static_cast<size_t>(design.cell_of_match[i]);
    const PairTerms& term = terms[cell * 3 + static_cast<size_t>(matches[i].outcome)];
    auto score = scores.col(cluster_of_match[i]);
    Parts parts(design, design.cells[cell]);
    for (int p = 0; p < parts.count; ++p) score[parts.at[p]] += parts.factor[p] * term.d;
    if (design.tie >= 0) score[design.tie] += term.t;
  }
  double g = clusters;
  Matrix half = bread * scores;  // what is fixed has no rows in `bread`
  return flat(half * half.transpose() * (g / (g - 1)));
}

}  // namespace qlora
