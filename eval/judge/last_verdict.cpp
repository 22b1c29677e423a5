#include "eval/judge/last_verdict.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

namespace qlora {

namespace {

using Words = std::vector<std::string>;
using Any = std::initializer_list<std::string_view>;

bool is_digit(char c) {
  return std::isdigit(static_cast<unsigned char>(c)) != 0;
}

// "Assistant 1's score: 8/10" = assistant 1 score 8 / 10. What would make a number another one stays a word.
Words words_of(std::string_view sentence) {
  Words words;
  std::string word;
  const auto end = [&] {
    if (!word.empty() && word != "s") words.push_back(word);
    word.clear();
  };
  for (size_t i = 0; i < sentence.size(); ++i) {
    const char c = sentence[i];
    const bool decimal = c == '.' && !word.empty() && is_digit(word.back()) && i + 1 < sentence.size() &&
                         is_digit(sentence[i + 1]);
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || decimal) {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      continue;
    }
    end();
    if (std::string_view("/%+-<>").find(c) != std::string_view::npos) words.emplace_back(1, c);
  }
  end();
  return words;
}

bool is(const std::string& word, Any any) {
  return std::find(any.begin(), any.end(), word) != any.end();
}
bool any_is(const Words& words, Any any) {
  return std::any_of(words.begin(), words.end(), [&](const std::string& word) { return is(word, any); });
}

// Doubt, negation, contrast; "t" is what is left of "isn't".
bool holds_back(const Words& words) {
  return any_is(words, {"not",     "t",      "no",      "nor",          "never",       "neither",   "none",
                        "cannot",  "unable", "hardly",  "barely",       "if",          "unless",    "or",
                        "whether", "but",    "however", "yet",          "although",    "though",    "while",
                        "whereas", "except", "despite", "unclear",      "unsure",      "would",     "could",
                        "should",  "might",  "may",     "can",          "had",         "difficult", "hard",
                        "claims",  "says",   "said",    "nevertheless", "nonetheless", "instead",   "which"});
}

// Without the reason that follows: "I choose 3, as both are equivalent".
void drop_reason(Words& words) {
  if (words.empty()) return;
  const auto reason = std::find_if(words.begin() + 1, words.end(), [](const std::string& word) {
    return is(word, {"because", "since", "as", "by", "due", "given", "with"});
  });
  words.erase(reason, words.end());
}

Verdict verdict_of_word(const std::string& word) {
  return word == "1"   ? Verdict::first_wins
         : word == "2" ? Verdict::second_wins
         : word == "3" ? Verdict::tie
                       : Verdict::invalid;
}

// "1", "assistant 2", "option 3", from `at` to the end; there is no third assistant.
Verdict choice_at(const Words& words, size_t at) {
  const bool named =
      at < words.size() && is(words[at], {"assistant", "answer", "option", "number", "response"});
  if (named) ++at;
  if (at + 1 != words.size()) return Verdict::invalid;
  const Verdict verdict = verdict_of_word(words[at]);
  return named && verdict == Verdict::tie && !is(words[at - 1], {"option", "number"}) ? Verdict::invalid
                                                                                      : verdict;
}

size_t skip(const Words& words, size_t at, Any filling) {
  while (at < words.size() && is(words[at], filling)) ++at;
  return at;
}

// "So the", "In conclusion, I think".
size_t skip_opening(const Words& words) {
  return skip(words, 0, {"so",  "therefore", "thus", "hence", "overall", "in",      "conclusion", "summary",
                         "and", "then",      "i",    "think", "believe", "finally", "final",      "my",
                         "the", "that",      "say",  "also",  "am",      "will",    "it",         "opinion"});
}

// "the answer is 2", "score: 1", "my final verdict: assistant 2": all of the sentence.
Verdict labelled(const Words& words) {
  const size_t at = skip_opening(words);
  if (at >= words.size() || !is(words[at], {"answer", "score", "verdict", "rating", "choice", "decision",
                                            "output", "result", "judgment", "judgement"}))
    return Verdict::invalid;
  const size_t value = skip(words, at + 1, {"is", "therefore", "thus"});
  return choice_at(words, value);
}

// "I choose option 3", "best answer is the answer of assistant 2".
Verdict chosen(const Words& words) {
  for (size_t i = 1; i < words.size(); ++i)
    if (words[i - 1] == "i" && is(words[i], {"choose", "select", "pick", "prefer"}))
      return choice_at(words, skip(words, i + 1, {"the", "answer", "response", "of", "from", "by"}));
  size_t at = skip_opening(words);
  if (at >= words.size()) return Verdict::invalid;
  if (!is(words[at], {"best", "better", "winner", "preferred"})) return Verdict::invalid;
  at = skip(words, at + 1, {"answer", "response", "assistant", "choice", "one", "overall"});
  const size_t value = skip(words, at, {"is", "the", "answer", "response", "of", "from", "by"});
  // "better 2" says nothing; "better answer 2" does, and "winner: 2".
  if (value < words.size() && is(words[value - 1], {"best", "better", "preferred"})) return Verdict::invalid;
  return choice_at(words, value);
}

// What may follow praise without taking it back: "than assistant 1", "answer of the two".
bool is_whole_praise(const Words& words, size_t at, const std::string& other) {
  at = skip(words, at,
            {"answer", "response", "one", "output", "job", "overall", "and", "more", "helpful", "detailed",
             "accurate", "informative", "comprehensive"});
  if (at < words.size() && is(words[at], {"than", "to"})) {
    const size_t compared =
        skip(words, at + 1, {"the", "answer", "response", "of", "from", "by", "assistant", "option"});
    if (compared < words.size() && words[compared] == other)
      at = skip(words, compared + 1, {"answer", "response", "did"});
    else if (words[at] == "than")
      return false;
  }
  at = skip(
      words, at,
      {"of", "the", "two", "overall", "here", "in", "this", "case", "comparison", "to", "question", "user"});
  return at == words.size();
}

// "assistant 2 provides the better answer", "answer 1 is slightly better than answer 2", "assistant 1 wins".
Verdict praised(const Words& words) {
  size_t at = skip_opening(words);
  at = skip(words, at, {"answer", "response", "from", "of", "by", "provided"});
  if (at < words.size() && words[at] == "assistant") ++at;
  if (at == 0 || at + 1 >= words.size() || !is(words[at], {"1", "2"}) ||
      !is(words[at - 1], {"assistant", "answer", "response"}))
    return Verdict::invalid;
  const Verdict verdict = verdict_of_word(words[at]);
  const std::string other = words[at] == "1" ? "2" : "1";
  at = skip(words, at + 1, {"answer", "response", "output"});
  const size_t verb = at;
  if (at < words.size() && is(words[at], {"wins", "won"}))
    return is_whole_praise(words, at + 1, other) ? verdict : Verdict::invalid;
  at = skip(words, at,
            {"is", "was", "performed", "performs", "did", "does", "provides", "provided", "gives", "gave",
             "has", "offers", "offered"});
  if (at == verb) return Verdict::invalid;
  at = skip(words, at,
            {"the", "a", "an", "slightly", "much", "clearly", "significantly", "somewhat", "overall",
             "marginally", "far", "definitely"});
  const bool praise = at < words.size() && is(words[at], {"better", "best", "superior", "winner"});
  return praise && is_whole_praise(words, at + 1, other) ? verdict : Verdict::invalid;
}

// "I rate assistant 1 answer as superior to assistant 2 answer", "I choose assistant 2 as the better one".
Verdict rated(const Words& words) {
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i - 1] != "i" || !is(words[i], {"rate", "consider", "judge", "choose", "find"})) continue;
    size_t at = skip(words, i + 1, {"the", "answer", "response", "of", "from", "by", "assistant"});
    if (at >= words.size() || !is(words[at], {"1", "2"}) || !is(words[at - 1], {"assistant", "answer"}))
      return Verdict::invalid;
    const Verdict verdict = verdict_of_word(words[at]);
    const std::string other = words[at] == "1" ? "2" : "1";
    at = skip(words, at + 1, {"answer", "response", "as", "to", "be", "the", "slightly"});
    const bool praise = at < words.size() && is(words[at], {"better", "best", "superior", "higher"});
    return praise && is_whole_praise(words, at + 1, other) ? verdict : Verdict::invalid;
  }
  return Verdict::invalid;
}

// "both answers are equally good", "the two responses are equivalent", "it is a tie".
Verdict tied(const Words& words) {
  size_t at = skip_opening(words);
  const size_t subject = at;
  at = skip(words, at, {"both", "two", "assistants", "answers", "responses", "they"});
  const bool both = at > subject;
  at = skip(words, at, {"is", "are", "were", "a", "this", "performed", "provided", "overall", "s"});
  if (at >= words.size()) return Verdict::invalid;
  if (words[at] == "tie") return at + 1 == words.size() ? Verdict::tie : Verdict::invalid;
  if (!both) return Verdict::invalid;
  if (words[at] == "equally")
    return at + 2 == words.size() && is(words[at + 1], {"good", "helpful", "well", "valid", "strong", "bad",
                                                        "poor", "correct", "incorrect"})
               ? Verdict::tie
               : Verdict::invalid;
  if (!is(words[at], {"equivalent", "equal", "tied"})) return Verdict::invalid;
  return skip(words, at + 1, {"in", "overall", "quality"}) == words.size() ? Verdict::tie : Verdict::invalid;
}

// Without what the judge goes by: "Considering detail and accuracy, Assistant 2's answer is better".
std::string_view without_grounds(std::string_view sentence) {
  const Words words = words_of(sentence);
  const size_t comma = sentence.rfind(',');
  const bool grounds = !words.empty() && is(words[0], {"considering", "based", "given"});
  return grounds && comma != std::string_view::npos ? sentence.substr(comma + 1) : sentence;
}

// "I would choose" is as good as "I choose".
void drop_politeness(Words& words) {
  for (size_t i = 1; i + 1 < words.size(); ++i)
    if (words[i] == "would" && words[i - 1] == "i" &&
        is(words[i + 1], {"rate", "consider", "judge", "choose", "select", "pick", "say"}))
      words.erase(words.begin() + static_cast<std::ptrdiff_t>(i));
}

struct Sentence {
  std::string_view text;
  bool question;
};

// A full stop ends a sentence unless a number goes on ("1.5") or a line of a list begins ("2. The answer").
bool ends_sentence(std::string_view text, size_t at) {
  const char c = text[at];
  if (c == '\n' || c == '!' || c == '?') return true;
  if (c != '.') return false;
  if (at + 1 == text.size()) return true;
  if (is_digit(text[at + 1])) return false;
  const size_t line = text.rfind('\n', at) == std::string_view::npos ? 0 : text.rfind('\n', at) + 1;
  const std::string_view before = text.substr(line, at - line);
  const bool marker = before.find_first_not_of(" \t*0123456789") == std::string_view::npos;
  return !marker || text[at + 1] == '\n';
}

std::vector<Sentence> sentences_of(std::string_view text) {
  std::vector<Sentence> sentences;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && !ends_sentence(text, i)) continue;
    const std::string_view sentence = text.substr(begin, i - begin);
    if (std::any_of(sentence.begin(), sentence.end(),
                    [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }))
      sentences.push_back({sentence, i < text.size() && text[i] == '?'});
    begin = i + 1;
  }
  return sentences;
}

// Another figure than the verdict: points of an assistant, or the answer to the question itself.
bool holds_figure(const Words& words) {
  const auto number = [&](size_t at) { return at < words.size() && is_digit(words[at][0]); };
  if (words.size() == 2 && words[0] == "assistant") return true;  // a heading
  for (size_t i = 0; i < words.size(); ++i) {
    if (is(words[i], {"score", "rating"}) &&
        std::any_of(words.begin() + static_cast<std::ptrdiff_t>(i), words.end(),
                    [](const std::string& word) { return is_digit(word[0]); }))
      return true;
    if (words[i] == "assistant" && number(i + 1) && number(i + 2)) return true;
    if (is(words[i], {"answer", "result", "output"})) {
      const size_t value = skip(words, i + 1, {"is", "was"});
      if (number(value) && (value > i + 1 || !is(words[value], {"1", "2"}))) return true;
    }
  }
  return false;
}

bool is_only_figure(const std::vector<Sentence>& sentences) {
  return std::none_of(sentences.begin(), sentences.end() - 1,
                      [](const Sentence& sentence) { return holds_figure(words_of(sentence.text)); });
}

}  // namespace

Verdict last_verdict(std::string_view text) {
  constexpr size_t kLast = 4;
  const std::vector<Sentence> sentences = sentences_of(text);
  for (size_t back = 0; back < std::min(kLast, sentences.size()); ++back) {
    const Sentence& sentence = sentences[sentences.size() - 1 - back];
    Words all = words_of(sentence.text);
    drop_politeness(all);
    if (sentence.question || holds_back(all)) return Verdict::invalid;
    Words words = words_of(without_grounds(sentence.text));
    drop_politeness(words);
    if (Verdict verdict = rated(words); verdict != Verdict::invalid) return verdict;
    drop_reason(words);
    if (back == 0) {
      if (Verdict verdict = choice_at(words, 0); verdict != Verdict::invalid) return verdict;
      if (Verdict verdict = labelled(words); verdict != Verdict::invalid)
        return is_only_figure(sentences) ? verdict : Verdict::invalid;
    }
    for (auto rule : {chosen, praised, tied})
      if (Verdict verdict = rule(words); verdict != Verdict::invalid) return verdict;
  }
  return Verdict::invalid;
}

}  // namespace qlora
