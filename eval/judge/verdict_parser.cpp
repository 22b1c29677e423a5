#include "eval/judge/verdict_parser.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <utility>
#include <vector>

#include "core/base/check.h"
#include "core/base/names.h"
#include "eval/judge/last_verdict.h"

namespace qlora {

namespace {

constexpr std::string_view kBlank = " \t\r\n\v\f";

std::string_view trim(std::string_view text, std::string_view what = kBlank) {
  size_t first = text.find_first_not_of(what);
  return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(what) - first + 1);
}

std::optional<double> number_of(std::string_view text) {
  if (text.starts_with("+")) text.remove_prefix(1);
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= 1e6))
    return std::nullopt;
  return value;
}

Verdict verdict_of_digit(std::string_view digit) {
  return digit == "1"   ? Verdict::first_wins
         : digit == "2" ? Verdict::second_wins
         : digit == "3" ? Verdict::tie
                        : Verdict::invalid;
}

Parsed threeclass_1(std::string_view text) {
  text = trim(text);
  size_t cut = text.rfind('\n');
  return {verdict_of_digit(trim(cut == std::string_view::npos ? text : text.substr(cut + 1))), {}, {}};
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  return out;
}

// Words and digits of a sentence, punctuation and "'s" dropped: "Assistant 1's answer" = assistant 1 answer.
std::vector<std::string> words_of(std::string_view sentence) {
  std::vector<std::string> words;
  std::string word;
  auto end = [&] {
    if (!word.empty() && word != "s") words.push_back(word);
    word.clear();
  };
  for (char c : sentence) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      word += c;
    else
      end();
  }
  end();
  return words;
}

bool holds(const std::vector<std::string>& words, std::initializer_list<std::string_view> any) {
  return std::any_of(words.begin(), words.end(), [&](const std::string& word) {
    return std::find(any.begin(), any.end(), word) != any.end();
  });
}

// "choose 3", "choose option 3", "answer is the answer of assistant 2", "best answer 2": the digit that a
// word of choice leads to, with nothing but filling words between.
Verdict chosen(const std::vector<std::string>& words) {
  auto is = [](const std::string& word, std::initializer_list<std::string_view> any) {
    return std::find(any.begin(), any.end(), word) != any.end();
  };
  Verdict last = Verdict::invalid;
  for (size_t i = 0; i < words.size(); ++i) {
    if (!is(words[i], {"choose", "choice", "select", "pick", "best", "better", "option", "output", "verdict",
                       "winner", "prefer", "rating", "final"}))
      continue;
    size_t at = i + 1;
    while (at < words.size() &&
           is(words[at],
              {"is",      "the",     "answer",   "answers",   "response", "of", "from", "by", "option",
               "number",  "would",   "be",       "assistant", "that",     "to", "one",  "as", "choice",
               "verdict", "overall", "provided", "given",     "a",        "am", "i",    "my"}))
      ++at;
    if (at < words.size() && verdict_of_digit(words[at]) != Verdict::invalid)
      last = verdict_of_digit(words[at]);
  }
  return last;
}

// "assistant 1 performed better", "assistant 2 answer is (slightly) better".
Verdict praised(const std::vector<std::string>& words) {
  for (size_t i = 0; i + 2 < words.size(); ++i) {
    if (words[i] != "assistant" || (words[i + 1] != "1" && words[i + 1] != "2")) continue;
    size_t at = i + 2;
    while (at < words.size() && (words[at] == "answer" || words[at] == "response" || words[at] == "is" ||
                                 words[at] == "performed" || words[at] == "slightly" || words[at] == "the" ||
                                 words[at] == "did" || words[at] == "was"))
      ++at;
    bool praise = at > i + 2 && at < words.size() &&
                  (words[at] == "better" || words[at] == "best" || words[at] == "superior");
    if (praise) return verdict_of_digit(words[i + 1]);
  }
  return Verdict::invalid;
}

Verdict read_sentence(std::string_view sentence) {
  std::vector<std::string> words = words_of(lower(sentence));
  if (holds(words, {"cannot", "unable", "not", "neither", "if", "or"})) return Verdict::invalid;
  if (words.size() == 1) return verdict_of_digit(words[0]);
  if (Verdict verdict = chosen(words); verdict != Verdict::invalid) return verdict;
  if (Verdict verdict = praised(words); verdict != Verdict::invalid) return verdict;
  if (words.size() == 2 && (words[0] == "assistant" || words[0] == "answer" || words[0] == "option"))
    return verdict_of_digit(words[1]);
  bool both = holds(words, {"both", "two", "assistants", "answers", "responses", "they"});
  bool equal = holds(words, {"equivalent", "tie", "equal"}) || (holds(words, {"equally"}) && both);
  return both && equal ? Verdict::tie : Verdict::invalid;
}

// From the end: a verdict stands there, after the reasons.
Parsed threeclass_2(std::string_view text) {
  if (Parsed first = threeclass_1(text); first.verdict != Verdict::invalid) return first;
  constexpr int kSentences = 4;
  std::string_view rest = trim(text);
  for (int i = 0; i < kSentences && !rest.empty(); ++i) {
    rest = trim(rest, " \t\r\n.!*\"'`");
    size_t cut = rest.find_last_of("\n.!?");
    std::string_view sentence = cut == std::string_view::npos ? rest : rest.substr(cut + 1);
    if (Verdict verdict = read_sentence(sentence); verdict != Verdict::invalid) return {verdict, {}, {}};
    rest = cut == std::string_view::npos ? "" : rest.substr(0, cut);
  }
  return {};
}

Parsed threeclass_3(std::string_view text) {
  if (Parsed first = threeclass_1(text); first.verdict != Verdict::invalid) return first;
  return {last_verdict(text), {}, {}};
}

Parsed points(std::optional<double> first, std::optional<double> second) {
  if (!first || !second) return {};
  return {verdict_of(*first, *second), first, second};
}

Parsed scores_1(std::string_view text) {
  std::string line(text.substr(0, text.find('\n')));
  std::replace(line.begin(), line.end(), ',', ' ');
  size_t cut = line.find(' ');
  if (cut == std::string::npos || line.find(' ', cut + 1) != std::string::npos) return {};
  return points(number_of(trim(std::string_view(line).substr(0, cut))),
                number_of(trim(std::string_view(line).substr(cut + 1))));
}

std::optional<double> up_to_ten(std::string_view text) {
  std::optional<double> value = number_of(trim(text));
  return value && *value <= 10 ? value : std::nullopt;
}

// Points and where they stand in the text.
struct Found {
  Parsed points;
  size_t at = 0;
};

// The last "(a, b)".
Found last_pair(std::string_view text) {
  for (size_t end = text.size(); end > 0;) {
    size_t open = text.rfind('(', end - 1);
    if (open == std::string_view::npos) break;
    size_t close = text.find(')', open), comma = text.find(',', open);
    if (close != std::string_view::npos && comma < close) {
      Parsed pair = points(up_to_ten(text.substr(open + 1, comma - open - 1)),
                           up_to_ten(text.substr(comma + 1, close - comma - 1)));
      if (pair.verdict != Verdict::invalid) return {pair, open};
    }
    end = open;
  }
  return {};
}

// The number that begins at `at`, a fraction of ten ("8/10") included; what follows must not continue a word.
std::optional<double> number_at(std::string_view text, size_t at) {
  size_t end = at;
  while (end < text.size() && (std::isdigit(static_cast<unsigned char>(text[end])) != 0 ||
                               (text[end] == '.' && end + 1 < text.size() &&
                                std::isdigit(static_cast<unsigned char>(text[end + 1])) != 0)))
    ++end;
  return end == at ? std::nullopt : up_to_ten(text.substr(at, end - at));
}

// The last points that are given to "assistant N" in words, and where; `text` in lower case.
std::pair<std::optional<double>, size_t> points_for(std::string_view text, std::string_view assistant) {
  static constexpr std::array<std::string_view, 5> kLeads = {": ", " a score of ", " a ", " = ",
                                                             "'s score: "};
  for (size_t end = text.size(); end > 0;) {
    size_t at = text.rfind(assistant, end - 1);
    if (at == std::string_view::npos) break;
    std::string_view after = text.substr(at + assistant.size());
    for (std::string_view lead : kLeads)
      if (after.starts_with(lead))
        if (std::optional<double> value = number_at(after, lead.size())) return {value, at};
    end = at;
  }
  return {std::nullopt, 0};
}

Found last_words(std::string_view text) {
  const std::string small = lower(text);
  auto [first, first_at] = points_for(small, "assistant 1");
  auto [second, second_at] = points_for(small, "assistant 2");
  return {points(first, second), std::min(first_at, second_at)};
}

// Whichever stands later: a pair in brackets may also be a point of the problem.
Parsed scores_2(std::string_view text) {
  if (Parsed first = scores_1(text); first.verdict != Verdict::invalid) return first;
  const Found pair = last_pair(text), words = last_words(text);
  if (words.points.verdict == Verdict::invalid) return pair.points;
  return pair.points.verdict != Verdict::invalid && pair.at > words.at ? pair.points : words.points;
}

Parsed fastchat_1(std::string_view text) {
  Parsed found;
  int count = 0;
  static constexpr std::array<std::pair<std::string_view, Verdict>, 3> kMarks = {
      {{"[[A]]", Verdict::first_wins}, {"[[B]]", Verdict::second_wins}, {"[[C]]", Verdict::tie}}};
  for (auto [mark, verdict] : kMarks)
    if (text.find(mark) != std::string_view::npos) {
      found.verdict = verdict;
      ++count;
    }
  return count == 1 ? found : Parsed{};
}

constexpr std::array<VerdictParser, 6> kParsers = {{
    {"threeclass-1", "the QLoRA release's: the last line is 1, 2 or 3", false, threeclass_1},
    {"threeclass-2", "that, else the last sentence that names a choice", false, threeclass_2},
    {"threeclass-3", "that of 1, else the last sentence if it says so beyond doubt", false, threeclass_3},
    {"scores-1", "the QLoRA release's: the first line is two numbers", true, scores_1},
    {"scores-2", "that, else the last pair in brackets, else points given in words", true, scores_2},
    {"fastchat-1", "[[A]], [[B]] or [[C]], exactly one of them", false, fastchat_1},
}};

}  // namespace

std::span<const VerdictParser> verdict_parsers() {
  return kParsers;
}

const VerdictParser& verdict_parser(const std::string& name) {
  std::vector<std::string> known;
  for (const VerdictParser& parser : kParsers) {
    if (parser.name == name) return parser;
    known.emplace_back(parser.name);
  }
  fail(ErrorKind::usage, "{}", unknown_name("parser", name, known));
}

}  // namespace qlora
