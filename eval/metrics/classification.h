#pragma once
// Scores of predicted class labels against true ones. Conventions of the usual libraries: a ratio whose
// denominator is zero is 0; averages over classes run over every label that occurs in either list.

#include <cstdint>
#include <span>
#include <vector>

namespace qlora {

// Counts of (truth, prediction). Rows are truths, columns predictions, both in the order of `labels`.
struct Confusion {
  std::vector<int64_t> labels;               // sorted
  std::vector<std::vector<int64_t>> counts;  // [labels][labels]
  int64_t n = 0;
};
// Throws Error(failure) unless both have the same length.
Confusion confusion(std::span<const int64_t> truth, std::span<const int64_t> predicted);

struct PrecisionRecall {
  double precision = 0, recall = 0, f1 = 0;
};
// Of one class against all others. A label that does not occur scores 0.
PrecisionRecall precision_recall(const Confusion&, int64_t label);

double accuracy(const Confusion&);
double f1_macro(const Confusion&);     // mean over labels
double f1_weighted(const Confusion&);  // mean over labels, weighted by their number in the truth
double f1_micro(const Confusion&);     // with one label an item this is the accuracy
// Mean recall of the labels that occur in the truth.
double balanced_accuracy(const Confusion&);
// Matthews' correlation for any number of classes (Gorodkin 2004); 0, by scikit-learn's definition, where
// truth or prediction is constant.
double matthews_correlation(const Confusion&);

}  // namespace qlora
