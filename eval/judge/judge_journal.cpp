// The journal of a study: what was answered is on the disk before the next answer is counted.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "core/base/check.h"
#include "eval/judge/judge_run.h"
#include "eval/judge/judgments.h"
#include "eval/judge/layouts.h"
#include "eval/judge/rows.h"

namespace qlora {

namespace {

constexpr const char* kPromptFile = "prompts.jsonl";
constexpr const char* kLedgerFile = "ledger.jsonl";

std::string line_of(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

// Appends whole lines and flushes them to the disk.
void append(const Path& path, const std::string& text) {
  int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  QLORA_CHECK(fd >= 0, failure, "{}: cannot be opened for writing: {}", path.string(), std::strerror(errno));
  bool written =
      ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  int error = errno;
  ::close(fd);
  QLORA_CHECK(written, failure, "{}: cannot be written: {}", path.string(), std::strerror(error));
}

// Takes a last line without its end off: the process that wrote it was killed, and nobody has counted it.
void drop_cut_line(const Path& path) {
  const std::string content = read_file(path);
  if (content.empty() || content.back() == '\n') return;
  size_t end = content.rfind('\n');
  std::error_code error;
  std::filesystem::resize_file(path, end == std::string::npos ? 0 : end + 1, error);
  QLORA_CHECK(!error, failure, "{}: cannot be shortened: {}", path.string(), error.message());
}

using PromptKey = std::pair<std::string, std::string>;  // judge and prompt id

const char* wanted_by(bool points) {
  return points ? "points" : "verdicts";
}

// What prompts.jsonl says of each.
std::map<PromptKey, std::string> known_wordings(const Path& path) {
  std::map<PromptKey, std::string> known;
  if (!std::filesystem::exists(path)) return known;
  for_each_row(read_file(path), path.string(), [&](const Row& row) {
    known[{row.text("judge"), row.text("prompt_id")}] = row.text("sha256");
  });
  return known;
}

std::set<std::string> reviews_of(std::span<const JudgeAsk> asks) {
  std::set<std::string> reviews;
  for (const JudgeAsk& ask : asks) reviews.insert(ask.vote.review);
  return reviews;
}

// What a journal has one vote on.
using Subject = std::tuple<std::string, std::string, bool, std::string, std::string, std::string>;
Subject subject_of(const Vote& v) {
  return {v.judge, v.prompt, v.points, v.item, v.first, v.second};
}

// By file, the lines whose votes stand where an ask's vote belongs and answer none.
std::map<Path, std::set<int>> other_lines(const Path& folder, std::span<const JudgeAsk> asks) {
  const std::set<std::string> reviews = reviews_of(asks);
  std::set<Subject> subjects;
  for (const JudgeAsk& ask : asks) subjects.insert(subject_of(ask.vote));
  std::map<Path, std::set<int>> found;
  for (const JudgmentFile& file : journal_votes(folder))
    for (const Vote& vote : file.votes)
      if (subjects.contains(subject_of(vote)) && !reviews.contains(vote.review))
        found[file.path].insert(vote.line);
  return found;
}

void make_folder(const Path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  QLORA_CHECK(!error, failure, "{}: cannot make the folder: {}", folder.string(), error.message());
}

// Written there before they are taken off here: a process that is killed between the two does it again, and
// finds them there.
void set_aside(const Path& path, const std::set<int>& lines, const Path& folder) {
  make_folder(folder);
  const Path there = folder / path.filename();
  if (std::filesystem::exists(there)) drop_cut_line(there);
  const std::string known = std::filesystem::exists(there) ? "\n" + read_file(there) : "\n";
  std::string kept, others;
  std::istringstream text(read_file(path));
  int number = 0;
  for (std::string line; std::getline(text, line);) {
    line += '\n';
    if (!lines.contains(++number))
      kept += line;
    else if (known.find("\n" + line) == std::string::npos)
      others += line;
  }
  if (!others.empty()) append(there, others);
  if (!kept.empty()) return write_file(path, kept);
  std::error_code error;
  std::filesystem::remove(path, error);
  QLORA_CHECK(!error, failure, "{}: cannot be removed: {}", path.string(), error.message());
}

}  // namespace

JudgeJournal::JudgeJournal(const Path& folder) : folder_(folder) {
  make_folder(folder);
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".jsonl") drop_cut_line(entry.path());
}

std::vector<JudgmentFile> journal_votes(const Path& folder) {
  std::vector<JudgmentFile> files;
  if (!std::filesystem::is_directory(folder)) return files;
  std::set<Path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().find("-vs-") != std::string::npos) paths.insert(entry.path());
  for (const Path& path : paths) {
    std::string content = read_file(path);
    content.resize(content.rfind('\n') + 1);
    if (!content.empty()) files.push_back(parse_judgments(path, content));
  }
  return files;
}

std::vector<JudgeAsk> missing_asks(std::span<const JudgmentFile> files, std::span<const JudgeAsk> asks) {
  std::set<std::string> done;
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) done.insert(vote.review);
  std::vector<JudgeAsk> missing;
  for (const JudgeAsk& ask : asks)
    if (!done.contains(ask.vote.review)) missing.push_back(ask);
  return missing;
}

std::vector<JudgmentFile> votes_for(std::vector<JudgmentFile> files, std::span<const JudgeAsk> asks) {
  const std::set<std::string> asked = reviews_of(asks);
  for (JudgmentFile& file : files)
    std::erase_if(file.votes, [&](const Vote& vote) { return !asked.contains(vote.review); });
  std::erase_if(files, [](const JudgmentFile& file) { return file.votes.empty(); });
  return files;
}

void JudgeJournal::check_prompts(std::span<const JudgmentFile> files, std::span<const JudgeAsk> asks) {
  constexpr const char* kRemedy =
      "give the new votes another folder (--out), or the prompt another prompt_id";
  std::map<PromptKey, bool> points;
  for (const JudgmentFile& file : files)
    for (const Vote& vote : file.votes) points[{vote.judge, vote.prompt}] = vote.points;
  const Path path = folder_ / kPromptFile;
  std::map<PromptKey, std::string> known = known_wordings(path);
  new_prompts_.clear();
  for (const JudgeAsk& ask : asks) {
    const PromptKey key = {ask.vote.judge, ask.vote.prompt};
    const auto asked = points.find(key);
    QLORA_CHECK(asked == points.end() || asked->second == ask.vote.points, usage,
                "{}: prompt {} has asked {} for {}, and now asks for {}; {}", folder_.string(),
                ask.vote.prompt, ask.vote.judge, wanted_by(!ask.vote.points), wanted_by(ask.vote.points),
                kRemedy);
    const auto [place, fresh] = known.try_emplace(key, ask.wording);
    QLORA_CHECK(place->second == ask.wording, usage,
                "{}: prompt {} has asked {} with other words than now; {}", path.string(), ask.vote.prompt,
                ask.vote.judge, kRemedy);
    if (fresh)
      new_prompts_ += line_of({{"judge", ask.vote.judge},
                               {"prompt_id", ask.vote.prompt},
                               {"points", ask.vote.points},
                               {"sha256", ask.wording}});
  }
}

std::vector<JudgeAsk> JudgeJournal::missing(std::span<const JudgeAsk> asks) {
  for (const JudgeAsk& ask : asks)  // before anything is paid for
    judgment_file_name({ask.vote.first, ask.vote.second, ask.vote.judge}, !ask.vote.points);
  const std::vector<JudgmentFile> files = journal_votes(folder_);
  check_prompts(files, asks);
  return missing_asks(files, asks);
}

int64_t JudgeJournal::other_votes(std::span<const JudgeAsk> asks) const {
  int64_t n = 0;
  for (const auto& [path, lines] : other_lines(folder_, asks)) n += static_cast<int64_t>(lines.size());
  return n;
}

int64_t JudgeJournal::set_aside_other_votes(std::span<const JudgeAsk> asks) const {
  int64_t n = 0;
  for (const auto& [path, lines] : other_lines(folder_, asks)) {
    set_aside(path, lines, folder_ / "superseded");
    n += static_cast<int64_t>(lines.size());
  }
  return n;
}

void JudgeJournal::commit(const Vote* vote, const JudgeLedgerRow& row) {
  if (!new_prompts_.empty()) append(folder_ / kPromptFile, std::exchange(new_prompts_, ""));
  if (vote != nullptr)
    for (const auto& [name, content] : layout("qlora").write(std::span(vote, 1)))
      append(folder_ / name, content);
  append(folder_ / kLedgerFile, line_of({{"item", row.item},
                                         {"first", row.first},
                                         {"second", row.second},
                                         {"attempts", row.attempts},
                                         {"prompt_tokens", row.prompt_tokens},
                                         {"answer_tokens", row.answer_tokens},
                                         {"money", row.money},
                                         {"seconds", row.seconds},
                                         {"error", row.error}}));
}

JudgeSpent JudgeJournal::spent() const {
  JudgeSpent spent;
  const Path path = folder_ / kLedgerFile;
  if (!std::filesystem::exists(path)) return spent;
  for_each_row(read_file(path), path.string(), [&](const Row& row) {
    spent.tokens += row.integer("prompt_tokens") + row.integer("answer_tokens");
    spent.money += row.number("money");
  });
  return spent;
}

}  // namespace qlora
