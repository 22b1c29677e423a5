#include "eval/metrics/porter_stemmer.h"

#include <array>
#include <optional>
#include <span>
#include <utility>

namespace qlora {
namespace {

bool vowel_letter(char c) {
  return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u';
}

// `y` is a consonant at the beginning and after a vowel.
bool consonant(std::string_view word, size_t i) {
  size_t first = i;  // of the run of y that ends at i, or the letter before it
  while (first > 0 && word[first] == 'y') --first;
  const bool begins = !vowel_letter(word[first]);
  return (i - first) % 2 == 0 ? begins : !begins;
}

// m of the paper: how often a vowel is followed by a consonant.
int measure(std::string_view stem) {
  int m = 0;
  for (size_t i = 1; i < stem.size(); ++i) m += consonant(stem, i) && !consonant(stem, i - 1) ? 1 : 0;
  return m;
}

bool has_vowel(std::string_view stem) {
  for (size_t i = 0; i < stem.size(); ++i)
    if (!consonant(stem, i)) return true;
  return false;
}

bool ends_double_consonant(std::string_view word) {
  const size_t n = word.size();
  return n >= 2 && word[n - 1] == word[n - 2] && consonant(word, n - 1);
}

// *o of the paper: consonant, vowel, consonant that is not w, x or y.
bool ends_short(std::string_view word) {
  const size_t n = word.size();
  if (n == 2) return !consonant(word, 0) && consonant(word, 1);
  return n >= 3 && consonant(word, n - 3) && !consonant(word, n - 2) && consonant(word, n - 1) &&
         word[n - 1] != 'w' && word[n - 1] != 'x' && word[n - 1] != 'y';
}

bool positive(std::string_view stem) {
  return measure(stem) > 0;
}
bool above_one(std::string_view stem) {
  return measure(stem) > 1;
}
bool always(std::string_view) {
  return true;
}
bool above_one_after_s_or_t(std::string_view stem) {
  return above_one(stem) && (stem.back() == 's' || stem.back() == 't');
}
// `logi` is measured with its l.
bool positive_with_l(std::string_view stem) {
  return measure(std::string(stem) + "l") > 0;
}

struct Rule {
  std::string_view ending, replacement;
  bool (*condition)(std::string_view stem);
};

// The first rule whose ending fits decides, also when its condition fails.
std::string apply_rules(std::string_view word, std::span<const Rule> rules) {
  for (const Rule& rule : rules) {
    if (!word.ends_with(rule.ending)) continue;
    std::string_view stem = word.substr(0, word.size() - rule.ending.size());
    return rule.condition(stem) ? std::string(stem) + std::string(rule.replacement) : std::string(word);
  }
  return std::string(word);
}

// The word without the ending, if it has it.
std::optional<std::string> without(std::string_view word, std::string_view ending) {
  if (!word.ends_with(ending)) return std::nullopt;
  return std::string(word.substr(0, word.size() - ending.size()));
}

std::string step_1a(std::string_view word) {
  if (word.size() == 4 && word.ends_with("ies")) return std::string(word.substr(0, 1)) + "ie";
  static constexpr std::array<Rule, 4> kRules = {
      {{"sses", "ss", always}, {"ies", "i", always}, {"ss", "ss", always}, {"s", "", always}}};
  return apply_rules(word, kRules);
}

std::string step_1b(std::string_view word) {
  if (auto stem = without(word, "ied")) return *stem + (word.size() == 4 ? "ie" : "i");
  if (auto stem = without(word, "eed")) return positive(*stem) ? *stem + "ee" : std::string(word);
  std::optional<std::string> stem = without(word, "ed");
  if (!stem || !has_vowel(*stem)) stem = without(word, "ing");
  if (!stem || !has_vowel(*stem)) return std::string(word);
  if (stem->ends_with("at") || stem->ends_with("bl") || stem->ends_with("iz")) return *stem + "e";
  if (ends_double_consonant(*stem)) {
    const char last = stem->back();
    if (last != 'l' && last != 's' && last != 'z') stem->pop_back();
    return *stem;
  }
  return measure(*stem) == 1 && ends_short(*stem) ? *stem + "e" : *stem;
}

std::string step_1c(std::string_view word) {
  auto stem = without(word, "y");
  return stem && stem->size() > 1 && consonant(*stem, stem->size() - 1) ? *stem + "i" : std::string(word);
}

std::string step_2(std::string_view word) {
  if (auto stem = without(word, "alli"); stem && positive(*stem)) return step_2(*stem + "al");
  static constexpr std::array<Rule, 22> kRules = {{
      {"ational", "ate", positive},     {"tional", "tion", positive}, {"enci", "ence", positive},
      {"anci", "ance", positive},       {"izer", "ize", positive},    {"bli", "ble", positive},
      {"alli", "al", positive},         {"entli", "ent", positive},   {"eli", "e", positive},
      {"ousli", "ous", positive},       {"ization", "ize", positive}, {"ation", "ate", positive},
      {"ator", "ate", positive},        {"alism", "al", positive},    {"iveness", "ive", positive},
      {"fulness", "ful", positive},     {"ousness", "ous", positive}, {"aliti", "al", positive},
      {"iviti", "ive", positive},       {"biliti", "ble", positive},  {"fulli", "ful", positive},
      {"logi", "log", positive_with_l},
  }};
  return apply_rules(word, kRules);
}

std::string step_3(std::string_view word) {
  static constexpr std::array<Rule, 7> kRules = {{{"icate", "ic", positive},
                                                  {"ative", "", positive},
                                                  {"alize", "al", positive},
                                                  {"iciti", "ic", positive},
                                                  {"ical", "ic", positive},
                                                  {"ful", "", positive},
                                                  {"ness", "", positive}}};
  return apply_rules(word, kRules);
}

std::string step_4(std::string_view word) {
  static constexpr std::array<Rule, 19> kRules = {{
      {"al", "", above_one},   {"ance", "", above_one}, {"ence", "", above_one},
      {"er", "", above_one},   {"ic", "", above_one},   {"able", "", above_one},
      {"ible", "", above_one}, {"ant", "", above_one},  {"ement", "", above_one},
      {"ment", "", above_one}, {"ent", "", above_one},  {"ion", "", above_one_after_s_or_t},
      {"ou", "", above_one},   {"ism", "", above_one},  {"ate", "", above_one},
      {"iti", "", above_one},  {"ous", "", above_one},  {"ive", "", above_one},
      {"ize", "", above_one},
  }};
  return apply_rules(word, kRules);
}

std::string step_5(std::string_view word) {
  std::string result(word);
  if (auto stem = without(word, "e")) {
    const int m = measure(*stem);
    if (m > 1 || (m == 1 && !ends_short(*stem))) result = *stem;
  }
  if (result.ends_with("ll") && above_one(std::string_view(result).substr(0, result.size() - 1)))
    result.pop_back();
  return result;
}

std::optional<std::string_view> irregular(std::string_view word) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 16> kStems = {{
      {"sky", "sky"},
      {"skies", "sky"},
      {"dying", "die"},
      {"lying", "lie"},
      {"tying", "tie"},
      {"news", "news"},
      {"inning", "inning"},
      {"innings", "inning"},
      {"outing", "outing"},
      {"outings", "outing"},
      {"canning", "canning"},
      {"cannings", "canning"},
      {"howe", "howe"},
      {"proceed", "proceed"},
      {"exceed", "exceed"},
      {"succeed", "succeed"},
  }};
  for (const auto& [from, stem] : kStems)
    if (from == word) return stem;
  return std::nullopt;
}

}  // namespace

std::string porter_stem(std::string_view word) {
  if (auto stem = irregular(word)) return std::string(*stem);
  if (word.size() <= 2) return std::string(word);
  return step_5(step_4(step_3(step_2(step_1c(step_1b(step_1a(word)))))));
}

}  // namespace qlora
