#pragma once
// Reading a verdict, or points, out of a judge's words. Parsers are versioned and never changed once they
// have been used: a better one gets the next number, so that a stored text can be parsed again without asking
// the judge again, and every result says which parser made it.

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "eval/judge/vote.h"

namespace qlora {

struct Parsed {
  Verdict verdict = Verdict::invalid;
  std::optional<double> first, second;  // points, of parsers of points
};

struct VerdictParser {
  std::string_view name;  // KIND-VERSION
  std::string_view about;
  bool points;  // reads points of two answers rather than a verdict
  Parsed (*parse)(std::string_view judge_text);
};

// threeclass-1   the QLoRA release's: the last line, blanks aside, is 1, 2 or 3 and nothing else
// threeclass-2   that; else the last sentence that says so: "I choose option 3", "Best answer: 2", "Assistant
// 1
//                performed better", "both are equivalent"
// threeclass-3   the first; else the last sentence that says so by the rules of last_verdict.h, which know
// more
//                forms ("Score: 1", "Assistant 2 provides the better answer") and stop at any doubt
// scores-1       the release's: the first line is two numbers, with a blank or a comma between
// scores-2       that; else the last pair in brackets, "(8, 10)", or the last "Assistant 1: 8/10" and
// "Assistant
//                2: 10/10", or "Assistant 1 a score of 8", whichever stands later, with numbers from 0 to 10
// fastchat-1     FastChat's pairs: [[A]], [[B]] or [[C]], and exactly one of them
// What a parser of version 1 reads, later versions read alike.
std::span<const VerdictParser> verdict_parsers();
// Throws Error(usage) with the nearest name.
const VerdictParser& verdict_parser(const std::string& name);

}  // namespace qlora
