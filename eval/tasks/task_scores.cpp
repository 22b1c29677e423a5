// From the values of items to a task's scores.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "eval/metrics/classification.h"
#include "eval/metrics/correlation.h"
#include "eval/tasks/run_task.h"

namespace qlora {
namespace {

using Results = std::vector<const TaskItemResult*>;

// Mean and its standard error by the sample's deviation.
void set_mean(TaskScore& score, const Results& results, size_t metric) {
  const auto n = static_cast<double>(results.size());
  double sum = 0, squares = 0;
  for (const TaskItemResult* r : results) sum += r->values[metric].value;
  score.value = sum / n;
  for (const TaskItemResult* r : results) squares += std::pow(r->values[metric].value - score.value, 2);
  if (results.size() > 1) score.standard_error = std::sqrt(squares / (n - 1) / n);
}

using Groups = std::map<std::string, Results>;

Groups groups_of(const TaskData& data, const Results& results) {
  Groups groups;
  for (const TaskItemResult* r : results)
    if (const std::string& group = data.items[r->item].group; !group.empty()) groups[group].push_back(r);
  return groups;
}

// Every group counts the same, whatever its size.
void set_mean_of_groups(TaskScore& score, const TaskData& data, const Results& results, size_t metric) {
  const Groups groups = groups_of(data, results);
  const auto k = static_cast<double>(groups.size());
  double sum = 0, variance = 0;
  bool known = true;
  for (const auto& [name, members] : groups) {
    TaskScore group;
    set_mean(group, members, metric);
    sum += group.value;
    known = known && group.standard_error.has_value();
    if (known) variance += *group.standard_error * *group.standard_error;
  }
  score.n = static_cast<int64_t>(groups.size());
  score.value = groups.empty() ? std::nan("") : sum / k;
  if (groups.empty()) score.note = "undefined: no item belongs to a group";
  if (known && k > 0) score.standard_error = std::sqrt(variance) / k;
}

template <class T>
bool all_equal(const std::vector<T>& values) {
  return std::all_of(values.begin(), values.end(), [&](const T& v) { return v == values[0]; });
}

// scikit-learn's conventions: both are 0 where their denominators are.
void of_predictions(TaskScore& score, Aggregation how, const TaskData& data, const Results& results) {
  std::vector<int64_t> gold, predicted;
  for (const TaskItemResult* r : results) {
    gold.push_back(data.items[r->item].gold);
    predicted.push_back(r->prediction);
  }
  const Confusion table = confusion(gold, predicted);
  score.value = how == Aggregation::f1 ? precision_recall(table, 1).f1 : matthews_correlation(table);
  if (how == Aggregation::mcc && (all_equal(gold) || all_equal(predicted)))
    score.note =
        fmt::format("0 by definition: all {} are equal", all_equal(gold) ? "answers" : "predictions");
}

// scipy's conventions: a correlation with a constant is not defined.
void with_ratings(TaskScore& score, Aggregation how, const TaskData& data, const Results& results,
                  size_t metric) {
  std::vector<double> ratings, values;
  for (const TaskItemResult* r : results) {
    ratings.push_back(data.items[r->item].rating);
    values.push_back(r->values[metric].value);
  }
  const Correlation all = how == Aggregation::pearson ? pearson(ratings, values) : spearman(ratings, values);
  score.value = all.value.value_or(std::numeric_limits<double>::quiet_NaN());
  if (!all.value)
    score.note = results.size() < 2   ? "undefined for fewer than two items"
                 : all_equal(ratings) ? "undefined: all people's ratings are equal"
                                      : "undefined: all predictions are equal";
}

TaskScore score_of(const Task& task, size_t metric, const TaskData& data, const Results& results) {
  const Metric& m = task.metrics[metric];
  TaskScore score;
  score.metric = m.name;
  score.filter = m.filter;
  score.n = static_cast<int64_t>(results.size());
  score.higher_is_better = m.higher_is_better;
  double sum = 0, weight = 0;
  for (const TaskItemResult* r : results) {
    sum += r->values[metric].value;
    weight += r->values[metric].weight;
  }
  switch (m.aggregation) {
    case Aggregation::mean:
      set_mean(score, results, metric);
      break;
    case Aggregation::f1:
    case Aggregation::mcc:
      of_predictions(score, m.aggregation, data, results);
      break;
    case Aggregation::pearson:
    case Aggregation::spearman:
      with_ratings(score, m.aggregation, data, results, metric);
      break;
    case Aggregation::perplexity:
    case Aggregation::weighted_perplexity:
      score.value = std::exp(-sum / weight);
      break;
    case Aggregation::weighted_bits:
      score.value = -sum / weight / std::log(2.0);
      break;
    case Aggregation::mean_of_groups:
      set_mean_of_groups(score, data, results, metric);
      break;
  }
  return score;
}

}  // namespace

std::vector<TaskScore> score_task(const Task& task, const TaskData& data,
                                  std::span<const TaskItemResult> results) {
  Results all;
  for (const TaskItemResult& r : results) all.push_back(&r);
  std::vector<TaskScore> scores;
  if (all.empty()) return scores;
  for (size_t m = 0; m < task.metrics.size(); ++m) scores.push_back(score_of(task, m, data, all));
  for (const auto& [group, members] : groups_of(data, all))
    for (size_t m = 0; m < task.metrics.size(); ++m) {
      if (task.metrics[m].aggregation == Aggregation::mean_of_groups) continue;
      scores.push_back(score_of(task, m, data, members));
      scores.back().group = group;
    }
  return scores;
}

}  // namespace qlora
