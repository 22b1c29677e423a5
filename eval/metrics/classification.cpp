#include "eval/metrics/classification.h"

#include <algorithm>
#include <cmath>

#include "core/base/check.h"

namespace qlora {
namespace {

double ratio(double a, double b) {
  return b == 0 ? 0 : a / b;
}

// How often label i is true, and how often it is predicted.
double true_count(const Confusion& c, size_t i) {
  int64_t sum = 0;
  for (int64_t n : c.counts[i]) sum += n;
  return static_cast<double>(sum);
}
double predicted_count(const Confusion& c, size_t i) {
  int64_t sum = 0;
  for (const std::vector<int64_t>& row : c.counts) sum += row[i];
  return static_cast<double>(sum);
}
double right_count(const Confusion& c) {
  int64_t sum = 0;
  for (size_t i = 0; i < c.labels.size(); ++i) sum += c.counts[i][i];
  return static_cast<double>(sum);
}

}  // namespace

Confusion confusion(std::span<const int64_t> truth, std::span<const int64_t> predicted) {
  QLORA_CHECK(truth.size() == predicted.size(), failure, "{} true labels, but {} predictions", truth.size(),
              predicted.size());
  Confusion c;
  c.n = static_cast<int64_t>(truth.size());
  c.labels.assign(truth.begin(), truth.end());
  c.labels.insert(c.labels.end(), predicted.begin(), predicted.end());
  std::sort(c.labels.begin(), c.labels.end());
  c.labels.erase(std::unique(c.labels.begin(), c.labels.end()), c.labels.end());
  c.counts.assign(c.labels.size(), std::vector<int64_t>(c.labels.size(), 0));
  auto place = [&](int64_t label) {
    return static_cast<size_t>(std::lower_bound(c.labels.begin(), c.labels.end(), label) - c.labels.begin());
  };
  for (size_t i = 0; i < truth.size(); ++i) ++c.counts[place(truth[i])][place(predicted[i])];
  return c;
}

PrecisionRecall precision_recall(const Confusion& c, int64_t label) {
  PrecisionRecall scores;
  auto found = std::lower_bound(c.labels.begin(), c.labels.end(), label);
  if (found == c.labels.end() || *found != label) return scores;
  const auto i = static_cast<size_t>(found - c.labels.begin());
  const auto both = static_cast<double>(c.counts[i][i]);
  scores.precision = ratio(both, predicted_count(c, i));
  scores.recall = ratio(both, true_count(c, i));
  scores.f1 = ratio(2 * both, predicted_count(c, i) + true_count(c, i));
  return scores;
}

double accuracy(const Confusion& c) {
  return ratio(right_count(c), static_cast<double>(c.n));
}

double f1_macro(const Confusion& c) {
  double sum = 0;
  for (int64_t label : c.labels) sum += precision_recall(c, label).f1;
  return ratio(sum, static_cast<double>(c.labels.size()));
}

double f1_weighted(const Confusion& c) {
  double sum = 0;
  for (size_t i = 0; i < c.labels.size(); ++i) sum += precision_recall(c, c.labels[i]).f1 * true_count(c, i);
  return ratio(sum, static_cast<double>(c.n));
}

double f1_micro(const Confusion& c) {
  return accuracy(c);
}

double balanced_accuracy(const Confusion& c) {
  double sum = 0, labels = 0;
  for (size_t i = 0; i < c.labels.size(); ++i) {
    if (true_count(c, i) == 0) continue;
    sum += precision_recall(c, c.labels[i]).recall;
    ++labels;
  }
  return ratio(sum, labels);
}

double matthews_correlation(const Confusion& c) {
  const auto n = static_cast<double>(c.n);
  double agreement = 0, truth = 0, predicted = 0;
  for (size_t i = 0; i < c.labels.size(); ++i) {
    agreement += true_count(c, i) * predicted_count(c, i);
    truth += true_count(c, i) * true_count(c, i);
    predicted += predicted_count(c, i) * predicted_count(c, i);
  }
  const double spread = (n * n - truth) * (n * n - predicted);
  return spread > 0 ? (right_count(c) * n - agreement) / std::sqrt(spread) : 0;
}

}  // namespace qlora
