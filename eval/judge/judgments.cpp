#include "eval/judge/judgments.h"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "core/base/check.h"
#include "core/base/log.h"
#include "core/base/names.h"
#include "eval/judge/answer_ids.h"
#include "eval/judge/known_systems.h"
#include "eval/judge/layouts.h"

namespace qlora {

namespace {

bool is_csv(const Path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".csv") || name.ends_with(".csv.gz");
}

constexpr const char* kJudgmentNames =
    "*-vs-*, *_vs_*, *_pair, *_single, *battle* and annotations, each .jsonl or .json (also with .gz), and "
    ".csv with the header of human votes";

// Without .jsonl or .json (and .gz); nothing for other files.
std::optional<std::string> stem_of_json(std::string name) {
  auto drop = [&](std::string_view ending) {
    if (!name.ends_with(ending)) return false;
    name.erase(name.size() - ending.size());
    return true;
  };
  drop(".gz");
  if (!drop(".jsonl") && !drop(".json")) return std::nullopt;
  return name;
}

bool names_judgments(const std::string& stem) {
  auto holds = [&](std::string_view part) { return stem.find(part) != std::string::npos; };
  return holds("-vs-") || holds("_vs_") || stem.ends_with("_pair") || stem.ends_with("_single") ||
         holds("battle") || stem == "annotations";
}

// By its first row, whatever its name; what cannot be read is none.
bool holds_judgments(const Path& path) {
  bool first = true, fits = false;
  try {
    std::string content = read_file(path);
    if (!content.starts_with('[')) content.resize(std::min(content.find('\n'), content.size()));
    for_each_row(content, path.string(), [&](const Row& row) {
      if (first)
        fits = std::any_of(layouts().begin(), layouts().end(), [&](const JudgmentLayout& l) { return l.fits(row); });
      first = false;
    });
  } catch (const Error&) {
  }
  return fits;
}

std::string list_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  const size_t shown = std::min(names.size(), kShown);
  return fmt::format("{}{}", fmt::join(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", "),
                     names.size() > shown ? ", ..." : "");
}

[[noreturn]] void explain_none(const Path& folder, const std::vector<std::string>& others,
                               const std::vector<std::string>& folders) {
  fail(ErrorKind::data, "{}: no judgment file here; in a folder, their names are {}{}{}", folder.string(),
       kJudgmentNames,
       others.empty() ? "" : fmt::format("; what has another name is given as a file ({})", list_of(others)),
       folders.empty() ? "" : fmt::format("; folders inside are not searched ({})", list_of(folders)));
}

std::vector<Path> in_folder(const Path& folder) {
  std::vector<Path> found;
  std::vector<std::string> others, folders;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory()) folders.push_back(name + "/");
    if (!entry.is_regular_file()) continue;
    const std::optional<std::string> stem = stem_of_json(name);
    if ((stem && names_judgments(*stem)) || is_human_csv(entry.path()))
      found.push_back(entry.path());
    else if (stem)
      others.push_back(name);
  }
  std::sort(others.begin(), others.end());
  std::sort(folders.begin(), folders.end());
  if (found.empty()) explain_none(folder, others, folders);
  std::erase_if(others, [&](const std::string& name) { return !holds_judgments(folder / name); });
  if (!others.empty())
    warn("{}: {} files of judgments are left out by their names ({}); to read them too, give them as files",
         folder.string(), others.size(), list_of(others));
  return found;
}

std::vector<Path> matching(const Path& folder, const std::string& pattern) {
  std::vector<Path> found;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder, missing))
    if (entry.is_regular_file() &&
        ::fnmatch(pattern.c_str(), entry.path().filename().string().c_str(), 0) == 0)
      found.push_back(entry.path());
  return found;
}

const JudgmentLayout& layout_of(const Row& row) {
  std::string known;
  for (const JudgmentLayout& layout : layouts()) {
    if (layout.fits(row)) return layout;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", layout.name);
  }
  fail(ErrorKind::data,
       "{}: the fields of this row are those of no known layout of judgments ({}; `qlora judge convert -h` "
       "describes them)",
       row.where(), known);
}

// Several votes on one item of one file are by several raters, in the order of the file.
void number_raters(std::vector<Vote>& votes) {
  using Key = std::tuple<std::string, int, std::string, std::string>;
  std::map<Key, std::pair<int, int>> counts;  // how many there are, how many were numbered
  auto count = [&](const Vote& v) -> std::pair<int, int>& {
    return counts[Key{v.item, v.turn, v.first, v.second}];
  };
  for (const Vote& vote : votes) ++count(vote).first;
  for (Vote& vote : votes)
    if (auto& [all, numbered] = count(vote); all > 1 && vote.rater.empty())
      vote.rater = std::to_string(++numbered);
}

// Of rows that share a line (an array that is not indented), the votes are numbered on: line and part tell
// all votes of a file apart.
void number_parts(std::vector<Vote>& votes, size_t fresh) {
  if (fresh == 0 || fresh == votes.size() || votes[fresh - 1].line != votes[fresh].line) return;
  const int before = votes[fresh - 1].part + 1;
  for (size_t i = fresh; i < votes.size(); ++i) votes[i].part += before;
}

void check_file(const JudgmentFile& file) {
  std::map<std::string, int> reviews;
  for (const Vote& vote : file.votes) {
    QLORA_CHECK(vote.points == file.votes.front().points, data,
                "{}:{}: verdicts and pairs of scores in one file (line {} is of the other kind)", file.path,
                vote.line, file.votes.front().line);
    if (vote.review.empty()) continue;
    auto [place, fresh] = reviews.try_emplace(vote.review, vote.line);
    QLORA_CHECK(fresh, data, "{}:{}: review {} stands in line {} already", file.path, vote.line, vote.review,
                place->second);
  }
}

Outcome outcome_of(Verdict verdict) {
  return verdict == Verdict::first_wins    ? Outcome::first_wins
         : verdict == Verdict::second_wins ? Outcome::second_wins
                                           : Outcome::tie;
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

struct MatchNumbers {
  Numbers systems, prompts, judges;
};

std::set<std::string> wanted_systems(std::span<const JudgmentFile> files,
                                     std::span<const std::string> systems, std::string_view asked_by) {
  const KnownSystems known = known_systems(files);
  std::set<std::string> wanted;
  for (const std::string& system : systems) wanted.insert(find_system(known, system, asked_by));
  if (systems.empty())
    for (const auto& [name, place] : known) wanted.insert(name);
  return wanted;
}

bool takes_part(const Vote& vote, const std::set<std::string>& wanted) {
  return wanted.count(vote.first) != 0 && (!vote.pairwise() || wanted.count(vote.second) != 0);
}

float relative_length(const Vote& vote) {
  auto first = static_cast<float>(vote.first_length), second = static_cast<float>(vote.second_length);
  return first > 0 && second > 0 ? (first - second) / (first + second) : 0.0F;
}

// The votes of one judge on one item in one order.
struct Group {
  Match match;
  int turn;
  std::vector<Verdict> verdicts;
};

[[noreturn]] void explain_no_match(std::span<const JudgmentFile> files,
                                   std::span<const std::string> systems) {
  int64_t alone = 0, pairs = 0;
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) ++(vote.pairwise() ? pairs : alone);
  std::string read = files.empty() ? "" : files.front().path;
  if (files.size() > 1) read += fmt::format(" and {} other files", files.size() - 1);
  QLORA_CHECK(pairs + alone > 0, data, "{}: no judgment to read; is nothing missing?", read);
  if (pairs == 0)
    fail(ErrorKind::data,
         "{}: {} scores of single answers, of which no match can be made; `qlora elo relative` compares such",
         read, alone);
  fail(ErrorKind::data, "{}: none of {} votes on two answers is a verdict{}", read, pairs,
       systems.empty() ? "; `qlora judge reparse` reads the judge's words again"
                       : fmt::format(" between two of {}", fmt::join(systems, ", ")));
}

void add_file(const JudgmentFile& file, VoteRule rule, const std::set<std::string>& wanted,
              MatchNumbers& numbers, Matches& result) {
  std::map<std::tuple<int32_t, int, int32_t, int32_t, int32_t>, Group> groups;
  for (const Vote& vote : file.votes) {
    if (!vote.pairwise() || !takes_part(vote, wanted)) continue;
    Match match;
    match.first = numbers.systems.of(vote.first);
    match.second = numbers.systems.of(vote.second);
    match.judge = numbers.judges.of(vote.judge);
    result.invalid.resize(numbers.systems.size());
    ++result.rows;
    if (!vote.valid()) {
      ++result.invalid_rows;
      ++result.invalid[static_cast<size_t>(match.first)];
      ++result.invalid[static_cast<size_t>(match.second)];
      continue;
    }
    match.outcome = outcome_of(vote.verdict);
    match.prompt = numbers.prompts.of(vote.item);
    match.order_known = vote.order_known;
    match.length = relative_length(vote);
    if (rule == VoteRule::each) {
      result.matches.push_back(match);
      continue;
    }
    Group& group = groups[{match.prompt, vote.turn, match.first, match.second, match.judge}];
    group.match = match;
    group.verdicts.push_back(vote.verdict);
  }
  for (auto& [key, group] : groups) {
    group.match.outcome = outcome_of(majority_of(group.verdicts));
    result.matches.push_back(group.match);
  }
}

}  // namespace

JudgmentFile read_judgments(const Path& path) {
  return parse_judgments(path, read_file(path));
}

JudgmentFile parse_judgments(const Path& path, std::string_view content) {
  JudgmentFile file;
  file.path = path.string();
  file.content = sha256(content);
  JudgmentSource source{file.path, hex(file.content).substr(0, 12), std::nullopt};
  const JudgmentLayout* layout = nullptr;
  int64_t shown = 0;
  const auto for_each = is_csv(path) ? for_each_csv_row : for_each_row;
  for_each(content, file.path, [&](const Row& row) {
    if (layout == nullptr) {
      layout = &layout_of(row);
      file.layout = layout->name;
      file.order = layout->named ? OrderSource::name : OrderSource::row;
      if (layout->named) source.name = parse_judgment_name(path.filename().string());
    }
    const size_t before = file.votes.size();
    layout->read(row, source, file.votes);
    number_parts(file.votes, before);
    shown += names_were_shown(row);
  });
  if (shown > 0)
    warn(
        "{}: in {} of {} battles the voter saw the systems' names (anony: false); they count like the "
        "others, FastChat leaves them out",
        file.path, shown, file.votes.size());
  check_file(file);
  number_raters(file.votes);
  return file;
}

std::vector<Path> find_judgment_files(std::span<const std::string> files_or_patterns) {
  std::set<Path> found;
  for (const std::string& text : files_or_patterns) {
    Path path(text);
    std::vector<Path> here;
    if (std::filesystem::is_directory(path)) {
      here = in_folder(path);
    } else if (std::filesystem::exists(path)) {
      here = {path};
    } else if (path.filename().string().find_first_of("*?[") != std::string::npos) {
      here = matching(path.has_parent_path() ? path.parent_path() : Path("."), path.filename().string());
    }
    QLORA_CHECK(!here.empty(), data, "{}: no such file or folder, and no pattern that matches a file", text);
    found.insert(here.begin(), here.end());
  }
  return {found.begin(), found.end()};
}

void check_claims(std::span<const JudgmentFile> files) {
  using Key = std::tuple<bool, std::string, std::string, std::string, std::string, int>;
  std::map<Key, std::pair<size_t, int>> claims;
  for (size_t f = 0; f < files.size(); ++f)
    for (const Vote& vote : files[f].votes) {
      Key key{vote.points, vote.judge + "\n" + vote.prompt, vote.first, vote.second, vote.item, vote.turn};
      auto [place, fresh] = claims.try_emplace(std::move(key), f, vote.line);
      auto [other, line] = place->second;
      QLORA_CHECK(
          other == f, data,
          "{}:{}: {} judges {} (shown first) and {} on item {}, which {}:{} does already; give one of the "
          "two files",
          files[f].path, vote.line, vote.judge, vote.first, vote.pairwise() ? vote.second : "no other",
          vote.item, files[other].path, line);
      // Votes without ids of their own may be several people's.
      QLORA_CHECK(
          fresh || vote.review.empty(), data,
          "{}:{}: {} judges {} (shown first) and {} on item {} a second time, after line {}; remove one of "
          "the two rows",
          files[f].path, vote.line, vote.judge, vote.first, vote.pairwise() ? vote.second : "no other",
          vote.item, line);
    }
}

std::vector<JudgmentFile> load_judgments(std::span<const std::string> files_or_patterns,
                                         const AnswerBook* answers) {
  std::vector<JudgmentFile> files;
  for (const Path& path : find_judgment_files(files_or_patterns)) files.push_back(read_judgments(path));
  orient_by_answer_ids(files, answers);
  check_claims(files);
  return files;
}

VoteRule vote_rule_from(const std::string& name) {
  if (name == "each") return VoteRule::each;
  if (name == "majority") return VoteRule::majority;
  fail(ErrorKind::usage, "{}",
       unknown_name("rule for votes", name, std::vector<std::string>{"each", "majority"}));
}

Verdict majority_of(std::span<const Verdict> verdicts) {
  int64_t first = 0, second = 0, valid = 0;
  for (Verdict verdict : verdicts) {
    first += verdict == Verdict::first_wins;
    second += verdict == Verdict::second_wins;
    valid += verdict != Verdict::invalid;
  }
  if (valid == 0) return Verdict::invalid;
  return 2 * first > valid ? Verdict::first_wins : 2 * second > valid ? Verdict::second_wins : Verdict::tie;
}

Matches gather_matches(std::span<const JudgmentFile> files, VoteRule rule,
                       std::span<const std::string> systems, std::string_view asked_by) {
  std::set<std::string> wanted = wanted_systems(files, systems, asked_by);
  Matches result;
  MatchNumbers numbers;
  for (const JudgmentFile& file : files) add_file(file, rule, wanted, numbers, result);
  if (result.matches.empty()) explain_no_match(files, systems);
  result.systems = numbers.systems.take();
  result.prompts = numbers.prompts.take();
  result.judges = numbers.judges.take();
  return result;
}

std::vector<JudgmentFile> only_between(std::span<const JudgmentFile> files,
                                       std::span<const std::string> systems, std::string_view asked_by) {
  std::set<std::string> wanted = wanted_systems(files, systems, asked_by);
  std::vector<JudgmentFile> result(files.begin(), files.end());
  for (JudgmentFile& file : result)
    std::erase_if(file.votes, [&](const Vote& vote) { return !takes_part(vote, wanted); });
  std::erase_if(result, [](const JudgmentFile& file) { return file.votes.empty(); });
  return result;
}

std::vector<JudgmentFile> only_by(std::span<const JudgmentFile> files, const std::string& judge) {
  std::set<std::string> judges;
  std::vector<JudgmentFile> result(files.begin(), files.end());
  for (JudgmentFile& file : result) {
    for (const Vote& vote : file.votes) judges.insert(vote.judge);
    std::erase_if(file.votes, [&](const Vote& vote) { return vote.judge != judge; });
  }
  std::erase_if(result, [](const JudgmentFile& file) { return file.votes.empty(); });
  QLORA_CHECK(!result.empty(), usage, "{}",
              unknown_name("judge", judge, std::vector<std::string>(judges.begin(), judges.end())));
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
