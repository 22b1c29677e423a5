#include "eval/tasks/bbh_answers.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/text/unicode.h"
#include "core/text/utf8.h"
#include "eval/tasks/answers.h"

namespace qlora {
namespace {

std::string choose(const std::vector<std::string>& matches, bool last) {
  return matches.empty() ? "" : trim(last ? matches.back() : matches.front());
}

// Lower case without punctuation.
std::string bare(std::string_view text) {
  std::string kept;
  const std::string lower = lowercase(text);
  for (size_t at = 0; at < lower.size();) {
    const size_t from = at;
    // The harness drops the categories P*; ASCII's symbols such as $ and + stay.
    const char32_t c = next_code_point(lower, at);
    const bool symbol =
        c < 0x80 && std::string_view("$+<=>^`|~").find(static_cast<char>(c)) != std::string_view::npos;
    if (!is_punctuation(c) || symbol) kept += lower.substr(from, at - from);
  }
  return kept;
}

std::string input_of(const TaskItem& item) {
  return parse_json(item.document, "BIG-Bench-Hard").at("input").get<std::string>();
}

// "(A) text" of the question: letters and bare texts, in order.
std::vector<std::string> option_texts(const TaskItem& item) {
  static const Regex pattern(R"((?<=\([A-Z]\))[^\n^(]*)", "bbh");
  std::vector<std::string> texts;
  for (const std::string& m : all_matches(pattern, input_of(item))) texts.push_back(bare(trim(m)));
  return texts;
}

// Where the options' texts stand in the answer; at one place the longest counts.
std::vector<std::string> matching_options(const TaskItem& item, const std::string& text) {
  std::vector<std::pair<std::string, std::string>> options;  // text, letter
  for (const std::string& option : option_texts(item)) {
    const auto letter = static_cast<char>('A' + static_cast<int>(options.size()));
    options.emplace_back(option, std::string("(") + letter + ")");
  }
  std::stable_sort(options.begin(), options.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  const std::string plain = bare(text);
  std::vector<std::string> found;
  for (size_t at = 0; at < plain.size();) {
    auto hit = std::find_if(options.begin(), options.end(), [&](const auto& o) {
      return !o.first.empty() && plain.compare(at, o.first.size(), o.first) == 0;
    });
    if (hit == options.end()) {
      ++at;
      continue;
    }
    found.push_back(hit->second);
    at += hit->first.size();
  }
  return found;
}

std::string option_letter(const TaskItem& item, const std::string& text, bool last) {
  static const Regex in_brackets(R"(\([A-Z]\))", "bbh");
  if (std::string letter = choose(all_matches(in_brackets, text), last); !letter.empty()) return letter;
  if (std::string letter = choose(matching_options(item, text), last); !letter.empty()) return letter;
  const auto options = static_cast<int>(option_texts(item).size());
  if (options == 0) return "";
  const Regex after_colon(fmt::format(R"((?<=:)\s*[A-{}])", static_cast<char>('A' + options - 1)), "bbh");
  const std::string letter = choose(all_matches(after_colon, text), last);
  return letter.empty() ? "" : "(" + letter + ")";
}

// The words of the question's list, in the order of their last mention.
std::string listed_words(const TaskItem& item, const std::string& text) {
  const std::string input = input_of(item);
  const size_t list = input.find("List:");
  if (list == std::string::npos) return "";
  std::string pattern;
  for (const std::string& word : split(trim(input.substr(list + 5)), ' '))
    if (!word.empty()) pattern += (pattern.empty() ? "" : "|") + ("\\b" + word + "\\b");
  std::vector<std::string> ordered;
  std::vector<std::string> matches = all_matches(Regex(pattern, "bbh"), text);
  for (auto m = matches.rbegin(); m != matches.rend(); ++m)
    if (std::find(ordered.begin(), ordered.end(), *m) == ordered.end()) ordered.push_back(*m);
  std::string joined;
  for (auto w = ordered.rbegin(); w != ordered.rend(); ++w) joined += (joined.empty() ? "" : " ") + *w;
  return joined;
}

// The tasks whose answers are words: what is looked for, and what stands for it.
struct WordTask {
  const char* group;
  const char* pattern;
  const char* no;  // phrases that mean `no`, where case is ignored
};
constexpr WordTask kWordTasks[] = {
    {"boolean_expressions", R"(\b(True|False)\b)", ""},
    {"causal_judgement", R"(\b(Yes|No|yes|no)\b)", ""},
    {"dyck_languages", R"((?<= )(["\x20\[\(<{}>\)\]]+)|(["\x20\[\(<{}>\)\]]+))", ""},
    {"formal_fallacies", R"(\b(valid|invalid)\b)", ""},
    {"multistep_arithmetic_two", R"([-0-9]+)", ""},
    {"navigate", R"(\b(Yes|No|yes|no)\b)", ""},
    {"object_counting", R"([-0-9]+)", ""},
    {"sports_understanding", R"(\b(no|not plausible)\b|\b(yes|plausible)\b)", "no|not plausible"},
    {"web_of_lies",
     R"(\b(no|does not tell the truth|is not telling the truth)\b|\b(yes|tells the truth|is telling the truth)\b)",
     "no|does not tell the truth|is not telling the truth"},
};

std::string word_of(const WordTask& task, const std::string& text, bool last) {
  const Regex pattern(task.pattern, "bbh");
  if (*task.no == '\0') return last ? last_match(pattern, text) : first_match(pattern, text);
  const std::string found = choose(all_matches(pattern, lowercase(text)), last);
  if (found.empty()) return found;
  const std::vector<std::string> no = split(task.no, '|');
  return std::find(no.begin(), no.end(), found) != no.end() ? "no" : "yes";
}

std::string find_answer(const TaskItem& item, const std::string& text, bool last) {
  std::string found;
  const WordTask* words = std::find_if(std::begin(kWordTasks), std::end(kWordTasks),
                                       [&](const WordTask& t) { return item.group == t.group; });
  if (words != std::end(kWordTasks)) {
    found = word_of(*words, text, last);
  } else if (item.group == "word_sorting") {
    return listed_words(item, text);
  } else {
    found = option_letter(item, text, last);
  }
  return found.empty() ? std::string(kNoAnswer) : found;
}

}  // namespace

std::string bbh_stated_answer(const TaskItem&, const std::string& text) {
  static const Regex pattern("(?<=the answer is ).*(?=.)", "bbh");
  return first_match(pattern, text);
}

std::string bbh_stated_answer_any(const TaskItem&, const std::string& text) {
  static const Regex pattern(
      "(?<=The answer is ).*(?=.)|(?<=the answer is ).*(?=.)|(?<=The answer: ).*(?=.)|"
      "(?<=The final answer: ).*(?=.)",
      "bbh");
  const std::vector<std::string> matches = all_matches(pattern, text);
  return matches.empty() || matches.front().empty() ? std::string(kNoAnswer) : trim(matches.front());
}

std::string bbh_first_answer(const TaskItem& item, const std::string& text) {
  return find_answer(item, text, false);
}

std::string bbh_last_answer(const TaskItem& item, const std::string& text) {
  return find_answer(item, text, true);
}

}  // namespace qlora
