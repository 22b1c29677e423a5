// STS-B (Cer et al. 2017; GLUE): how similar two sentences are, rated from 0 to 5 with fractions, scored by
// Pearson's and Spearman's correlation as GLUE does. lm-evaluation-harness has no such task, so that the
// protocol is our own: the whole numbers 0 to 5 are choices after the question, and the answer is their mean,
// weighted by the probabilities that the model gives to them alone. Likelihoods, not a generated number: a
// model that has not been trained for the task writes few distinct numbers, or none, and correlations of many
// ties and gaps say little.
#include <algorithm>
#include <cmath>

#include "eval/tasks/task.h"

namespace qlora {
namespace {

const std::vector<std::string> kRatings = {"0", "1", "2", "3", "4", "5"};

// The hub's rows have sentence1, sentence2 and label; the original release's score.
TaskItem stsb_item(const DataRow& row) {
  const char* field = row.has("label") ? "label" : "score";
  const double rating = row.number(field);
  if (!(rating >= 0 && rating <= 5))
    row.wrong(field, "a number from 0 to 5 (GLUE's test part has no answers)");
  TaskItem item =
      choice_item(row,
                  "Sentence 1: " + row.text("sentence1") + "\nSentence 2: " + row.text("sentence2") +
                      "\nQuestion: How similar are both sentences in meaning, from 0 (not at all) "
                      "to 5 (the same)?\nAnswer:",
                  kRatings, std::lround(rating));
  item.rating = rating;
  return item;
}

MetricValue expected_rating(const Metric&, const TaskItem&, const TaskAnswer& answer) {
  const std::vector<double>& lls = answer.log_likelihoods;
  const double top = *std::max_element(lls.begin(), lls.end());
  double sum = 0, weight = 0;
  for (size_t i = 0; i < lls.size(); ++i) {
    const double p = std::exp(lls[i] - top);
    sum += p * static_cast<double>(i);
    weight += p;
  }
  return {sum / weight};
}

}  // namespace

Task stsb() {
  Task task =
      choice_task("stsb", "1", "how similar are two sentences", {"STS-B/dev.tsv"}, items_of_rows<stsb_item>);
  task.protocol = "qlora";
  task.draw = FewshotDraw::first;
  task.metrics = {{"pearson", Aggregation::pearson}, {"spearmanr", Aggregation::spearman}};
  task.value = expected_rating;
  return task;
}

}  // namespace qlora
