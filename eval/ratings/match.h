#pragma once
// What every rating system of this folder reads: matches between systems, whoever judged them and in whatever
// layout the judgments were kept.

#include <cstdint>
#include <string>
#include <vector>

namespace qlora {

// Scores of the first system, in halves.
enum class Outcome : uint8_t { second_wins = 0, tie = 1, first_wins = 2 };

struct Match {
  int32_t first = 0, second = 0;  // indices of systems, different; `first` was shown first
  Outcome outcome = Outcome::tie;
  int32_t prompt = -1;      // index of the prompt; -1 = unknown (matches made from counts)
  int32_t judge = 0;        // index of the judge
  bool order_known = true;  // false: who was shown first is unknown; `first` is then just one of the two
  float length = 0;         // (a - b) / (a + b) for the lengths of the two answers; 0 where unknown
};

// The matches of one tournament, with the names behind their indices.
struct Matches {
  std::vector<std::string> systems;  // in order of first appearance in the sorted files
  std::vector<std::string> prompts;
  std::vector<std::string> judges;
  std::vector<Match> matches;
  int64_t rows = 0;              // of the systems that take part
  std::vector<int64_t> invalid;  // per system: rows without a verdict, dropped
  int64_t invalid_rows = 0;
};

}  // namespace qlora
