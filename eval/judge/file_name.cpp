#include "eval/judge/file_name.h"

#include <array>
#include <utility>

#include "core/base/check.h"

namespace qlora {

namespace {

// Judges whose names hold separators; of any other, the name is what follows the last separator.
constexpr std::array<std::string_view, 8> kJudges = {"gpt-3.5-turbo", "gpt-3.5",    "gpt-4-turbo", "gpt-4",
                                                     "gpt4",          "vicuna-13b", "gpt-4o",      "gpt35"};

bool is_separator(char c) {
  return c == '-' || c == '_';
}

bool drop_suffix(std::string_view& text, std::string_view suffix) {
  if (text.size() < suffix.size() || text.substr(text.size() - suffix.size()) != suffix) return false;
  text.remove_suffix(suffix.size());
  return true;
}

bool drop_prefix(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Takes "-word" or "_word" off the end.
bool drop_word(std::string_view& text, std::string_view word) {
  std::string_view rest = text;
  if (!drop_suffix(rest, word) || rest.empty() || !is_separator(rest.back())) return false;
  rest.remove_suffix(1);
  text = rest;
  return true;
}

// Takes the judge off the end; empty when there is none.
std::string take_judge(std::string_view& text) {
  std::string_view best;
  for (std::string_view judge : kJudges) {
    std::string_view rest = text;
    if (judge.size() > best.size() && drop_word(rest, judge)) best = judge;
  }
  if (best.empty()) {
    size_t cut = text.find_last_of("-_");
    if (cut == std::string_view::npos) return "";
    best = text.substr(cut + 1);
  }
  text.remove_suffix(best.size() + 1);
  return system_alias(best);
}

// SIZEb-DATASET-(vicuna|oa)-generations-topp0.9-temp0.7: a model that the release trained, "" for any other
// name.
std::string trained_alias(std::string_view name) {
  std::string tail;
  if (drop_suffix(name, "-secondround")) tail = "-secondround";
  drop_suffix(name, "-topp0.9-temp0.7");
  bool generations = drop_suffix(name, "-vicuna-generations") || drop_suffix(name, "-oa-generations");
  size_t dash = name.find('-');
  if (dash == std::string_view::npos) return "";
  std::string_view size = name.substr(0, dash), dataset = name.substr(dash + 1);
  drop_suffix(size, "b");
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kSizes = {
      {{"7", "7b"}, {"13", "13b"}, {"30", "33b"}, {"33", "33b"}, {"65", "65b"}}};
  for (auto [text, canonical] : kSizes)
    if (size == text && (generations || dataset == "guanaco"))
      return fmt::format("{}-{}{}", dataset, canonical, tail);
  return "";
}

// SYSTEM-SET-generations-LABEL, as `qlora generate` names its files (a SET has no dash there): the system, ""
// for any other name.
std::string generated_alias(std::string_view name) {
  static constexpr std::string_view kWord = "-generations-";
  const size_t word = name.rfind(kWord);
  if (word == std::string_view::npos) return "";
  const std::string_view label = name.substr(word + kWord.size());
  if (!label.starts_with("greedy") && !label.starts_with("topp")) return "";
  const size_t dash = name.substr(0, word).rfind('-');
  return dash == std::string_view::npos ? "" : std::string(name.substr(0, dash));
}

}  // namespace

std::string system_alias(std::string_view name) {
  std::string_view bare = name;
  if (!drop_prefix(bare, "answer-")) drop_prefix(bare, "answer_");
  if (std::string trained = trained_alias(bare); !trained.empty()) return trained;
  if (std::string generated = generated_alias(bare); !generated.empty()) return generated;
  drop_suffix(bare, "-oa-generations");
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kAliases = {
      {{"gpt35", "gpt-3.5"}, {"gpt4", "gpt-4"}, {"chatgpt", "gpt-3.5"}}};
  for (auto [alias, canonical] : kAliases)
    if (bare == alias) return std::string(canonical);
  return std::string(bare);
}

JudgmentName parse_judgment_name(std::string_view file_name) {
  std::string_view rest = file_name;
  drop_suffix(rest, ".gz");
  bool formed = drop_suffix(rest, ".jsonl");
  drop_word(rest, "threeclass");
  formed = formed && drop_word(rest, "reviewer");
  JudgmentName name;
  if (formed) name.judge = take_judge(rest);
  size_t vs = rest.find("-vs-");
  if (vs == std::string_view::npos) vs = rest.find("_vs_");
  QLORA_CHECK(formed && !name.judge.empty() && vs != std::string_view::npos && vs > 0 && vs + 4 < rest.size(),
              data, "{}: the name of a judgment file must be {}", file_name, kExpectedJudgmentName);
  name.first = system_alias(rest.substr(0, vs));
  name.second = system_alias(rest.substr(vs + 4));
  QLORA_CHECK(name.first != name.second, data, "{}: judges system {} against itself", file_name, name.first);
  return name;
}

std::string judgment_file_name(const JudgmentName& name, bool verdicts) {
  auto file_of = [&](const std::string& judge) {
    return fmt::format("{}-vs-{}-{}-reviewer{}.jsonl", name.first, name.second, judge,
                       verdicts ? "-threeclass" : "");
  };
  auto reads_back = [&](const std::string& judge) {
    const std::string file = file_of(judge);
    if (file.find('/') != std::string::npos) return false;
    const JudgmentName back = parse_judgment_name(file);
    return back.first == name.first && back.second == name.second && back.judge == judge;
  };
  if (reads_back(name.judge)) return file_of(name.judge);
  const std::string label = judge_label(name.judge);
  QLORA_CHECK(
      reads_back(label), usage,
      "{} against {}: such names cannot be told apart again in a file's name; rename the systems, or write "
      "another layout",
      name.first, name.second);
  return file_of(label);
}

std::string judge_label(std::string_view judge) {
  std::string label(judge);
  for (char& c : label)
    if (is_separator(c) || c == '/' || c == ' ') c = '.';
  return label;
}

}  // namespace qlora
