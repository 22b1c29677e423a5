#pragma once
// Parsing judges' texts again, offline: nobody is asked anything.

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "eval/judge/judgments.h"
#include "eval/judge/verdict_parser.h"

namespace qlora {

// What a parser made of the votes of files. Only votes without a verdict are changed: what was valid may have
// been put in by hand (156 of the release's 10-point rows), and is counted when the parser reads it
// otherwise.
struct ReparseReport {
  std::string parser;
  int64_t votes = 0, without_text = 0;  // of all; of those without a verdict that also have no text to parse
  int64_t invalid_before = 0, invalid_after = 0;
  int64_t first = 0, second = 0, ties = 0;    // of what was recovered
  int64_t same = 0, differs = 0, unread = 0;  // of what was valid: read alike, otherwise, not at all
  std::map<std::string, std::pair<int64_t, int64_t>> by_judge;  // invalid before, after
  std::map<std::string, std::pair<int64_t, int64_t>> by_system;
  int64_t recovered() const { return invalid_before - invalid_after; }
};

// Of the newest parsers of each kind, the one that reads the most of these votes; the first of them when none
// reads any.
const VerdictParser& parser_for(std::span<const JudgmentFile>);

// Parses the votes of the parser's kind (verdicts, or points) again, in place. Throws Error(usage) when no
// file has votes of that kind with a text.
ReparseReport reparse(std::span<JudgmentFile>, const VerdictParser&);

}  // namespace qlora
