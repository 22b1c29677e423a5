#pragma once
// Where a command takes judgments from: files, or the votes of the results store.

#include <string>
#include <vector>

#include "eval/judge/judgments.h"

namespace qlora {

struct VoteSource {
  std::vector<std::string> files;  // judgment files, folders, patterns; empty: the store
  std::string db, parser;  // of the store: its path, and whose reading of the votes (empty: the files')
  std::vector<std::string> answers;  // files of generations, by whose ids the order of showing is decided
  std::vector<std::string> systems;  // only votes between these
  std::string preset;                // its systems, when `systems` is empty
};

struct LoadedVotes {
  std::vector<JudgmentFile> files;
  std::vector<std::string> left_out;  // systems of the files that are not among those asked for
  int64_t reversed = 0;               // files whose names had the order wrong
  int64_t by_name = 0;                // files of which only the name says the order;
  int64_t with_ids = 0;               // of them, those whose votes have ids of answers
};

// `--systems A B` leaves B among the files. Moves to `systems`, when some are given, every file that is no
// path (nothing of that name, no pattern, no file's ending). Throws Error(usage) for one that is no path
// either and is a system of the other files: it says how to ask for it.
void settle_systems(std::vector<std::string>& files, std::vector<std::string>& systems);

// The votes that a store holds, by the reading of a parser (empty: the files' own), their claims checked.
// Throws Error(data) when there are none.
std::vector<JudgmentFile> stored_votes(const std::string& db, const std::string& parser);

// Throws Error(data) for bad or missing files, or a store without votes; Error(usage) for unknown names.
LoadedVotes load_votes(const VoteSource&);

// One or two lines for a reader: what was left out, and how the order of showing is known. May be empty.
std::string note_of(const LoadedVotes&, const VoteSource&);

}  // namespace qlora
