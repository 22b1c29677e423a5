#pragma once
// Judgments between their files and the results store.

#include <vector>

#include "eval/judge/judgments.h"
#include "results/records.h"

namespace qlora {

// A file's votes as rows of the store.
VoteFile vote_file(const JudgmentFile&);
// The way back: what the store holds of a file, for everything that reads files.
JudgmentFile judgment_file(const VoteFile&);

}  // namespace qlora
