#pragma once
// MMLU questions that this program and others are timed on.

#include "eval/tasks/mmlu.h"
#include "experiments/bench/bench.h"

namespace qlora::bench {

// The original questions, below QLORA_TEST_DATA or ../shared/data; or our own few, and why.
struct MmluTree {
  Path path;
  std::string why;  // empty: the original ones
};
MmluTree mmlu_tree();

// The five-shot questions of four subjects' val that peers are asked too: 61, or with `quick` three of each.
MmluOptions peer_questions(bool quick);
// Why they cannot be asked, or nothing.
std::string missing_peer_questions();
// For a peer, with their tokens: {"letters": [id, ..], "subjects": [{"name", "dev": [..], "questions":
// [..]}]}, rows
// {"question", "choices", "answer", "tokens"}.
Json peer_questions_json(const Options&);

}  // namespace qlora::bench
