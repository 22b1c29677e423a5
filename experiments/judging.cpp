#include "experiments/judging.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "eval/judge/answer_ids.h"
#include "eval/judge/layouts.h"
#include "experiments/stored_votes.h"
#include "results/store.h"
#include "results/table.h"

namespace qlora {

namespace {

// All or nothing, as far as files allow: what stands in the way is found before the first is written.
std::vector<std::string> write_all(const std::map<std::string, std::string>& contents, const Path& folder) {
  std::vector<std::string> paths;
  for (const auto& [name, content] : contents) {
    paths.push_back((folder / name).string());
    QLORA_CHECK(!std::filesystem::exists(paths.back()), usage, "{} is there already; choose another folder",
                paths.back());
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  QLORA_CHECK(!error, failure, "{}: cannot make the folder: {}", folder.string(), error.message());
  size_t next = 0;
  for (const auto& [name, content] : contents) write_file(paths[next++], content);
  return paths;
}

void write_by_layout(std::span<const JudgmentFile> files, const Path& folder) {
  std::map<std::string_view, std::vector<Vote>> votes;
  for (const JudgmentFile& file : files) {
    auto& all = votes[file.layout];
    all.insert(all.end(), file.votes.begin(), file.votes.end());
  }
  std::map<std::string, std::string> contents;
  for (const auto& [name, all] : votes) contents.merge(layout(std::string(name)).write(all));
  write_all(contents, folder);
}

// Of every vote that had no verdict in its file.
void store_readings(const std::string& db, const std::string& parser, std::span<const JudgmentFile> before,
                    std::span<const JudgmentFile> after) {
  Store store = Store::open(db);
  const std::vector<std::vector<int64_t>> ids = store.vote_ids();
  std::vector<VoteParse> parses;
  for (size_t f = 0; f < before.size(); ++f)
    for (size_t v = 0; v < before[f].votes.size(); ++v) {
      const Vote& vote = after[f].votes[v];
      if (!before[f].votes[v].valid())
        parses.push_back({ids[f][v], score_of(vote.verdict), vote.first_score, vote.second_score});
    }
  store.write_vote_parses(parser, parses);
}

Json counts_json(const std::map<std::string, std::pair<int64_t, int64_t>>& counts) {
  Json json = Json::object();
  for (const auto& [name, pair] : counts)
    json[name] = {{"invalid_before", pair.first}, {"invalid_after", pair.second}};
  return json;
}

std::vector<VoteFile> votes_in(const std::string& db) {
  if (!std::filesystem::exists(db)) return {};
  return Store::open(db).votes();
}

// Votes that are there already under another file's name would count twice ever after. A file that is there
// itself is replaced by what it holds now.
void check_against_store(const std::string& db, std::span<const VoteFile> rows) {
  std::vector<JudgmentFile> all;
  for (const VoteFile& stored : votes_in(db)) {
    const bool replaced = std::any_of(rows.begin(), rows.end(), [&](const VoteFile& row) {
      return row.path == stored.path ||
             (row.content == stored.content && Path(row.path).filename() == Path(stored.path).filename());
    });
    if (!replaced) all.push_back(judgment_file(stored));
  }
  for (const VoteFile& row : rows) all.push_back(judgment_file(row));
  check_claims(all);
  warn_of_two_answers(all);
}

}  // namespace

ImportReport import_votes(const VoteSource& source) {
  const LoadedVotes votes = load_votes(source);
  ImportReport report;
  std::vector<VoteFile> rows;
  for (const JudgmentFile& file : votes.files) {
    rows.push_back(vote_file(file));
    report.votes += static_cast<int64_t>(file.votes.size());
    for (const Vote& vote : file.votes) report.invalid += !vote.valid();
  }
  check_against_store(source.db, rows);
  report.files = static_cast<int64_t>(rows.size());
  report.new_files = Store::open(source.db).write_votes(rows);
  return report;
}

std::vector<std::string> convert_votes(const VoteSource& source, const std::string& layout_name,
                                       const Path& folder) {
  const LoadedVotes votes = load_votes(source);
  std::vector<Vote> all;
  for (const JudgmentFile& file : votes.files) all.insert(all.end(), file.votes.begin(), file.votes.end());
  return write_all(layout(layout_name).write(all), folder);
}

ReparseReport reparse_votes(const VoteSource& source, const std::string& parser_name, const Path& folder) {
  if (!parser_name.empty()) verdict_parser(parser_name);  // known before anything is read
  QLORA_CHECK(folder.empty() || !source.files.empty(), usage,
              "--out writes files; what is stored keeps its readings in the store");
  LoadedVotes votes = load_votes(source);
  const std::vector<JudgmentFile> before = votes.files;
  const VerdictParser& parser = parser_name.empty() ? parser_for(before) : verdict_parser(parser_name);
  ReparseReport report = reparse(votes.files, parser);
  if (!folder.empty()) write_by_layout(votes.files, folder);
  if (source.files.empty()) store_readings(source.db, std::string(parser.name), before, votes.files);
  return report;
}

std::string print_reparse(const ReparseReport& report) {
  std::string text = fmt::format(
      "{}: {} votes, {} without a verdict, {} of them recovered (first {}, second {}, tie {}), {} not ({} "
      "have no "
      "text).\n",
      report.parser, report.votes, report.invalid_before, report.recovered(), report.first, report.second,
      report.ties, report.invalid_after, report.without_text);
  text += fmt::format(
      "Of {} with a verdict: {} read alike, {} otherwise, {} not at all; they stay as they are.\n",
      report.same + report.differs + report.unread, report.same, report.differs, report.unread);
  Table table;
  table.columns = {"of", "invalid before", "after"};
  for (const auto* counts : {&report.by_judge, &report.by_system})
    for (const auto& [name, pair] : *counts) table.rows.push_back({name, pair.first, pair.second});
  return table.empty() ? text : text + render_text(table);
}

Json reparse_json(const ReparseReport& report) {
  return {{"parser", report.parser},
          {"votes", report.votes},
          {"invalid_before", report.invalid_before},
          {"invalid_after", report.invalid_after},
          {"recovered", {{"first", report.first}, {"second", report.second}, {"tie", report.ties}}},
          {"without_text", report.without_text},
          {"valid", {{"same", report.same}, {"differs", report.differs}, {"unread", report.unread}}},
          {"by_judge", counts_json(report.by_judge)},
          {"by_system", counts_json(report.by_system)}};
}

}  // namespace qlora
