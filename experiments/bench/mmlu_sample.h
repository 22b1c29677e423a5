#pragma once
// A sample of a split of MMLU in which every subject has its share, for timing questions of all of them.

#include <cstdint>
#include <vector>

#include "eval/tasks/mmlu.h"

namespace qlora::bench {

struct MmluSample {
  std::vector<size_t> questions;  // places in the plan, ascending: each subject's share of them, at least one
  std::vector<size_t> one_each;   // one of each subject's, as places in `questions`, ascending
};
// About `count` questions (as many as there are subjects at least, all at most), drawn by the seed.
MmluSample sample_questions(const MmluPlan&, int64_t count, uint64_t seed);

// By subject, in order: the tokens that all of its questions begin with, one left to each to be asked.
std::vector<std::vector<int32_t>> beginnings(const MmluPlan&);

}  // namespace qlora::bench
