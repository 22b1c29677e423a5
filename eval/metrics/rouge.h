#pragma once
// ROUGE (Lin 2004) as Google's rouge_score defines it, which agrees with ROUGE-1.5.5 to the printed digit:
// lower case, words are runs of [a-z0-9], words of more than three letters are stemmed where asked for.

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qlora {

struct RougeScore {
  double precision = 0, recall = 0, f = 0;  // 0 where either text has no n-gram
};

std::vector<std::string> rouge_words(std::string_view text, bool stem);

// ROUGE-N: n-grams in common, each counted as often as in the text that has it less often.
RougeScore rouge_n(std::span<const std::string> target, std::span<const std::string> prediction, size_t n);
// ROUGE-L: longest common subsequence of the whole texts.
RougeScore rouge_l(std::span<const std::string> target, std::span<const std::string> prediction);

struct RougeScores {
  RougeScore rouge1, rouge2, rouge_l, rouge_l_sum;
};
// All of one pair. rouge_l_sum is the summary-level ROUGE-L: each line is a sentence, and a target's sentence
// counts the union of its longest common subsequences with all sentences of the prediction.
// REQUIRES: valid UTF-8.
RougeScores rouge(std::string_view target, std::string_view prediction, bool stem);
// Against several targets: for each of the four, the score of the target with the largest f.
RougeScores rouge_best(std::span<const std::string> targets, std::string_view prediction, bool stem);

}  // namespace qlora
