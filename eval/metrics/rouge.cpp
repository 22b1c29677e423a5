#include "eval/metrics/rouge.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/base/check.h"
#include "core/text/unicode.h"
#include "eval/metrics/porter_stemmer.h"

namespace qlora {
namespace {

using Words = std::vector<std::string>;

RougeScore score(size_t common, size_t target, size_t prediction) {
  RougeScore s;
  s.precision = static_cast<double>(common) / static_cast<double>(std::max<size_t>(prediction, 1));
  s.recall = static_cast<double>(common) / static_cast<double>(std::max<size_t>(target, 1));
  if (s.precision + s.recall > 0) s.f = 2 * s.precision * s.recall / (s.precision + s.recall);
  return s;
}

std::map<Words, size_t> n_grams(std::span<const std::string> words, size_t n) {
  std::map<Words, size_t> counts;
  for (size_t i = 0; i + n <= words.size(); ++i)
    ++counts[Words(words.begin() + static_cast<std::ptrdiff_t>(i),
                   words.begin() + static_cast<std::ptrdiff_t>(i + n))];
  return counts;
}

// Words as numbers, so that comparing them is cheap.
using Ids = std::vector<uint32_t>;
class Lexicon {
 public:
  Ids ids(std::span<const std::string> words) {
    Ids result;
    for (const std::string& w : words)
      result.push_back(known_.emplace(w, static_cast<uint32_t>(known_.size())).first->second);
    return result;
  }
  size_t size() const { return known_.size(); }

 private:
  std::map<std::string, uint32_t, std::less<>> known_;
};

// Adds to `places` which words of a are in one longest common subsequence with b. Which one of several is
// part of the definition: walk back from the ends, and at a tie drop a word of a.
void add_common_places(const Ids& a, const Ids& b, std::set<size_t>& places) {
  const size_t width = b.size() + 1;
  // lengths[i * width + j]: of the longest common subsequence of the first i of a and the first j of b
  std::vector<uint32_t> lengths((a.size() + 1) * width, 0);
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j)
      lengths[i * width + j] = a[i - 1] == b[j - 1]
                                   ? lengths[(i - 1) * width + j - 1] + 1
                                   : std::max(lengths[(i - 1) * width + j], lengths[i * width + j - 1]);
  for (size_t i = a.size(), j = b.size(); i > 0 && j > 0;) {
    if (a[i - 1] == b[j - 1]) {
      places.insert(--i);
      --j;
    } else if (lengths[i * width + j - 1] > lengths[(i - 1) * width + j]) {
      --j;
    } else {
      --i;
    }
  }
}

std::vector<Ids> sentences(std::string_view text, bool stem, Lexicon& lexicon) {
  std::vector<Ids> all;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) all.push_back(lexicon.ids(rouge_words(text.substr(at, end - at), stem)));
    at = end + 1;
  }
  return all;
}

RougeScore rouge_l_sum(std::string_view target, std::string_view prediction, bool stem) {
  Lexicon lexicon;
  const std::vector<Ids> targets = sentences(target, stem, lexicon);
  const std::vector<Ids> predictions = sentences(prediction, stem, lexicon);
  std::vector<size_t> left_in_target(lexicon.size()), left_in_prediction(lexicon.size());
  size_t target_words = 0, prediction_words = 0, hits = 0;
  for (const Ids& s : targets)
    for (uint32_t w : s) ++left_in_target[w], ++target_words;
  for (const Ids& s : predictions)
    for (uint32_t w : s) ++left_in_prediction[w], ++prediction_words;
  for (const Ids& s : targets) {
    std::set<size_t> places;
    for (const Ids& p : predictions) add_common_places(s, p, places);
    for (size_t place : places) {
      // A word that stands in several unions is counted no more often than either text has it.
      size_t &in_target = left_in_target[s[place]], &in_prediction = left_in_prediction[s[place]];
      if (in_target == 0 || in_prediction == 0) continue;
      ++hits;
      --in_target;
      --in_prediction;
    }
  }
  return score(hits, target_words, prediction_words);
}

}  // namespace

Words rouge_words(std::string_view text, bool stem) {
  const std::string lower = lowercase(text);
  auto in_word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  Words words;
  for (size_t at = 0; at < lower.size();) {
    size_t end = at;
    while (end < lower.size() && in_word(lower[end])) ++end;
    if (end > at) {
      std::string word = lower.substr(at, end - at);
      words.push_back(stem && word.size() > 3 ? porter_stem(word) : std::move(word));
    }
    at = end + 1;
  }
  return words;
}

RougeScore rouge_n(std::span<const std::string> target, std::span<const std::string> prediction, size_t n) {
  QLORA_CHECK(n > 0, failure, "ROUGE-N needs n of at least 1");
  size_t common = 0;
  const std::map<Words, size_t> wanted = n_grams(target, n), found = n_grams(prediction, n);
  for (const auto& [gram, count] : wanted)
    if (auto other = found.find(gram); other != found.end()) common += std::min(count, other->second);
  auto grams = [n](size_t words) { return words >= n ? words - n + 1 : 0; };
  return score(common, grams(target.size()), grams(prediction.size()));
}

RougeScore rouge_l(std::span<const std::string> target, std::span<const std::string> prediction) {
  Lexicon lexicon;
  const Ids a = lexicon.ids(target), b = lexicon.ids(prediction);
  std::vector<size_t> above(b.size() + 1, 0), row(b.size() + 1, 0);  // lengths, as in add_common_places
  for (uint32_t word : a) {
    for (size_t j = 1; j <= b.size(); ++j)
      row[j] = word == b[j - 1] ? above[j - 1] + 1 : std::max(above[j], row[j - 1]);
    std::swap(above, row);
  }
  return score(above.back(), a.size(), b.size());
}

RougeScores rouge(std::string_view target, std::string_view prediction, bool stem) {
  const Words a = rouge_words(target, stem), b = rouge_words(prediction, stem);
  return {rouge_n(a, b, 1), rouge_n(a, b, 2), rouge_l(a, b), rouge_l_sum(target, prediction, stem)};
}

RougeScores rouge_best(std::span<const std::string> targets, std::string_view prediction, bool stem) {
  QLORA_CHECK(!targets.empty(), data, "ROUGE needs at least one target");
  RougeScores best = rouge(targets.front(), prediction, stem);
  auto take = [](RougeScore& mine, const RougeScore& other) {
    if (other.f > mine.f) mine = other;
  };
  for (const std::string& target : targets.subspan(1)) {
    const RougeScores s = rouge(target, prediction, stem);
    take(best.rouge1, s.rouge1);
    take(best.rouge2, s.rouge2);
    take(best.rouge_l, s.rouge_l);
    take(best.rouge_l_sum, s.rouge_l_sum);
  }
  return best;
}

}  // namespace qlora
