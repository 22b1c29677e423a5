#pragma once
// One vote: what one judge said of one or two answers to one item, kept as it was given. Majorities, ratings
// and agreement are derived from votes; nothing here is dropped or reordered.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace qlora {

// Of two answers in the order in which they were shown. `invalid` (no verdict could be read from the judge's
// text) is an outcome like the others: it is counted and stored, and can be parsed again.
enum class Verdict : uint8_t { first_wins, second_wins, tie, both_bad, invalid };

// As files of verdicts write it: 1, 2, 3 (tie), -1 (invalid). both_bad is 4, a number of our own.
constexpr int score_of(Verdict verdict) {
  constexpr int kScores[] = {1, 2, 3, 4, -1};
  return kScores[static_cast<int>(verdict)];
}

// The larger of two scores wins.
constexpr Verdict verdict_of(double first, double second) {
  return first > second ? Verdict::first_wins : first < second ? Verdict::second_wins : Verdict::tie;
}

struct Vote {
  std::string item;  // question_id or message_id, as text
  int turn = 1;      // of a conversation, from 1
  std::string first,
      second;  // systems; `first` was shown first. `second` is empty: one answer alone was scored
  bool order_known = true;  // false: `first` is just one of the two
  Verdict verdict = Verdict::invalid;
  bool points = false;  // the judge was asked for points of each answer, not for a verdict
  // The points, absent when invalid; or, of verdicts, each answer's share where the judge split it
  // (AlpacaEval).
  std::optional<double> first_score, second_score;
  std::string judge;                        // gpt-4, human, ...
  std::string prompt;                       // name of the judge's prompt template; empty when unknown
  std::string rater;                        // which of several raters of the item; empty when there was one
  std::string raw;                          // the judge's words
  std::string review;                       // the vote's own id in its file
  std::string first_answer, second_answer;  // ids of the answers
  int64_t first_length = 0, second_length = 0;  // of the answers, in bytes; 0 = unknown
  int line = 0;                                 // in its file, from 1
  int part =
      0;  // which vote of that line, from 0 (FastChat keeps both orders on one line, a compact array all)

  bool valid() const { return verdict != Verdict::invalid; }
  bool pairwise() const { return !second.empty(); }
};

}  // namespace qlora
