#include "eval/judge/judgments.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/base/check.h"
#include "core/base/json.h"
#include "core/base/names.h"

namespace qlora {

namespace {

constexpr std::string_view kExpectedName =
    "FIRST-vs-SECOND-JUDGE-reviewer-threeclass.jsonl (or .jsonl.gz, or with underscores)";

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

int score_of(const Json& row, const std::string& where) {
  auto score = row.find("score");
  QLORA_CHECK(score != row.end(), data, "{}: the row has no `score`", where);
  QLORA_CHECK(!score->is_array(), data,
              "{}: `score` is a list: this is a file of 10-point scores, not of verdicts (1, 2, 3, -1)",
              where);
  bool known = score->is_number_integer() && (*score == 1 || *score == 2 || *score == 3 || *score == -1);
  QLORA_CHECK(known, data,
              "{}: `score` must be 1 (first wins), 2 (second wins), 3 (tie) or -1 (no verdict), not {}",
              where, score->dump());
  return score->get<int>();
}

std::string item_of(const Json& row, const std::string& where) {
  for (const char* key : {"question_id", "message_id"}) {
    auto id = row.find(key);
    if (id == row.end()) continue;
    if (id->is_string()) return id->get<std::string>();
    if (id->is_number_integer()) return id->dump();
  }
  fail(ErrorKind::data, "{}: the row has no `question_id` or `message_id`", where);
}

bool is_judgment_file(const std::string& name) {
  std::string_view rest = name;
  drop_suffix(rest, ".gz");
  return drop_suffix(rest, ".jsonl") &&
         (name.find("-vs-") != std::string::npos || name.find("_vs_") != std::string::npos);
}

std::vector<Path> matching(const Path& folder, const std::string& pattern) {
  std::vector<Path> found;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder, missing)) {
    std::string name = entry.path().filename().string();
    bool wanted = pattern.empty() ? is_judgment_file(name) : ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
    if (wanted && entry.is_regular_file()) found.push_back(entry.path());
  }
  return found;
}

// Verdicts of one question of one file, in votes.
struct Count {
  int first = 0, second = 0, ties = 0;
  int valid() const { return first + second + ties; }
};

Outcome majority(const Count& votes) {
  if (2 * votes.first > votes.valid()) return Outcome::first_wins;
  if (2 * votes.second > votes.valid()) return Outcome::second_wins;
  return Outcome::tie;
}

Outcome outcome_of(int score) {
  return score == 1 ? Outcome::first_wins : score == 2 ? Outcome::second_wins : Outcome::tie;
}

// Gives numbers to names in order of first appearance.
class Numbers {
 public:
  int32_t of(const std::string& name) {
    auto [place, fresh] = ids_.try_emplace(name, static_cast<int32_t>(names_.size()));
    if (fresh) names_.push_back(name);
    return place->second;
  }
  size_t size() const { return names_.size(); }
  std::vector<std::string> take() { return std::move(names_); }

 private:
  std::map<std::string, int32_t> ids_;
  std::vector<std::string> names_;
};

std::set<std::string> wanted_systems(std::span<const JudgmentFile> files,
                                     std::span<const std::string> systems) {
  std::set<std::string> known, wanted;
  for (const JudgmentFile& file : files) known.insert({file.name.first, file.name.second});
  for (const std::string& system : systems) {
    std::string name = system_alias(system);
    QLORA_CHECK(known.count(name) != 0, usage, "{}",
                unknown_name("system", system, std::vector<std::string>(known.begin(), known.end())));
    wanted.insert(name);
  }
  return systems.empty() ? known : wanted;
}

struct MatchNumbers {
  Numbers systems, prompts, judges;
};

void add_file(const JudgmentFile& file, VoteRule rule, MatchNumbers& numbers, Matches& result) {
  int32_t first = numbers.systems.of(file.name.first), second = numbers.systems.of(file.name.second);
  int32_t judge = numbers.judges.of(file.name.judge);
  result.invalid.resize(numbers.systems.size());
  std::map<int32_t, Count> votes;  // by prompt
  for (const Judgment& row : file.rows) {
    ++result.rows;
    if (row.score == -1) {
      ++result.invalid_rows;
      ++result.invalid[static_cast<size_t>(first)];
      ++result.invalid[static_cast<size_t>(second)];
      continue;
    }
    int32_t prompt = numbers.prompts.of(row.item);
    if (rule == VoteRule::each) {
      result.matches.push_back({first, second, outcome_of(row.score), prompt, judge});
      continue;
    }
    Count& count = votes[prompt];
    ++(row.score == 1 ? count.first : row.score == 2 ? count.second : count.ties);
  }
  for (const auto& [prompt, count] : votes)
    result.matches.push_back({first, second, majority(count), prompt, judge});
}

}  // namespace

std::string system_alias(std::string_view name) {
  std::string_view bare = name;
  if (!drop_prefix(bare, "answer-")) drop_prefix(bare, "answer_");
  if (std::string trained = trained_alias(bare); !trained.empty()) return trained;
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
              data, "{}: the name of a judgment file must be {}", file_name, kExpectedName);
  name.first = system_alias(rest.substr(0, vs));
  name.second = system_alias(rest.substr(vs + 4));
  QLORA_CHECK(name.first != name.second, data, "{}: judges system {} against itself", file_name, name.first);
  return name;
}

JudgmentFile read_judgments(const Path& path) {
  JudgmentFile file;
  file.path = path.string();
  file.name = parse_judgment_name(path.filename().string());
  std::string content = read_file(path);
  file.content = sha256(content);
  std::string_view rest = content;
  for (int line = 1; !rest.empty(); ++line) {
    size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view text = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    std::string where = fmt::format("{}:{}", file.path, line);
    Json row = parse_json(text, where);
    QLORA_CHECK(row.is_object(), data, "{}: expected a JSON object", where);
    file.rows.push_back({item_of(row, where), score_of(row, where), line});
  }
  return file;
}

std::vector<Path> find_judgment_files(std::span<const std::string> files_or_patterns) {
  std::set<Path> found;
  for (const std::string& text : files_or_patterns) {
    Path path(text);
    std::vector<Path> here;
    if (std::filesystem::is_directory(path)) {
      here = matching(path, "");
    } else if (std::filesystem::exists(path)) {
      here = {path};
    } else if (path.filename().string().find_first_of("*?[") != std::string::npos) {
      here = matching(path.has_parent_path() ? path.parent_path() : Path("."), path.filename().string());
    }
    QLORA_CHECK(!here.empty(), data, "{}: no judgment file here; expected names are {}", text, kExpectedName);
    found.insert(here.begin(), here.end());
  }
  return {found.begin(), found.end()};
}

VoteRule vote_rule_from(const std::string& name) {
  if (name == "each") return VoteRule::each;
  if (name == "majority") return VoteRule::majority;
  fail(ErrorKind::usage, "{}",
       unknown_name("rule for votes", name, std::vector<std::string>{"each", "majority"}));
}

Matches gather_matches(std::span<const JudgmentFile> files, VoteRule rule,
                       std::span<const std::string> systems) {
  std::set<std::string> wanted = wanted_systems(files, systems);
  Matches result;
  MatchNumbers numbers;
  for (const JudgmentFile& file : files)
    if (wanted.count(file.name.first) != 0 && wanted.count(file.name.second) != 0)
      add_file(file, rule, numbers, result);
  QLORA_CHECK(!result.matches.empty(), data, "no valid judgment in {} files between the {} systems asked for",
              files.size(), wanted.size());
  result.systems = numbers.systems.take();
  result.prompts = numbers.prompts.take();
  result.judges = numbers.judges.take();
  return result;
}

EloReport rate(const Matches& matches, const EloOptions& options) {
  EloReport report = compute_elo(matches.systems, matches.matches, options);
  for (Rating& rating : report.ratings) {
    auto place = std::find(matches.systems.begin(), matches.systems.end(), rating.system);
    rating.invalid = matches.invalid[static_cast<size_t>(place - matches.systems.begin())];
  }
  return report;
}

}  // namespace qlora
