#include "eval/judge/reparse.h"

#include <algorithm>

#include "core/base/check.h"

namespace qlora {

namespace {

bool alike(const Vote& vote, const Parsed& parsed) {
  return vote.points ? vote.first_score == parsed.first && vote.second_score == parsed.second
                     : vote.verdict == parsed.verdict;
}

void count_valid(const Vote& vote, const Parsed& parsed, ReparseReport& report) {
  ++(parsed.verdict == Verdict::invalid ? report.unread : alike(vote, parsed) ? report.same : report.differs);
}

void recover(Vote& vote, const Parsed& parsed, ReparseReport& report) {
  ++report.invalid_before;
  report.without_text += vote.raw.empty();
  bool still = parsed.verdict == Verdict::invalid;
  report.invalid_after += still;
  for (auto* counts :
       {&report.by_judge[vote.judge], &report.by_system[vote.first], &report.by_system[vote.second]}) {
    ++counts->first;
    counts->second += still;
  }
  if (still) return;
  ++(parsed.verdict == Verdict::first_wins    ? report.first
     : parsed.verdict == Verdict::second_wins ? report.second
                                              : report.ties);
  vote.verdict = parsed.verdict;
  vote.first_score = parsed.first;
  vote.second_score = parsed.second;
}

}  // namespace

const VerdictParser& parser_for(std::span<const JudgmentFile> files) {
  const VerdictParser* best = nullptr;
  int64_t most = -1;
  for (const char* name : {"threeclass-3", "fastchat-1", "scores-2"}) {
    const VerdictParser& parser = verdict_parser(name);
    int64_t read = 0;
    for (const JudgmentFile& file : files)
      for (const Vote& vote : file.votes)
        read += vote.points == parser.points && vote.pairwise() &&
                parser.parse(vote.raw).verdict != Verdict::invalid;
    if (read > most) best = &parser;
    most = std::max(most, read);
  }
  return *best;
}

ReparseReport reparse(std::span<JudgmentFile> files, const VerdictParser& parser) {
  ReparseReport report;
  report.parser = parser.name;
  bool any_text = false;
  for (JudgmentFile& file : files)
    for (Vote& vote : file.votes) {
      if (vote.points != parser.points || !vote.pairwise()) continue;
      ++report.votes;
      any_text = any_text || !vote.raw.empty();
      const Parsed parsed = parser.parse(vote.raw);
      if (vote.valid())
        count_valid(vote, parsed, report);
      else
        recover(vote, parsed, report);
    }
  QLORA_CHECK(any_text, usage, "parser {} reads {}; no file has such votes with the judge's text",
              parser.name, parser.points ? "points of two answers" : "verdicts");
  return report;
}

}  // namespace qlora
