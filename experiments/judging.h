#pragma once
// What `qlora judge` does with judgments that are there already: store them, write them in another layout,
// parse their words again.

#include <string>
#include <vector>

#include "core/base/json.h"
#include "eval/judge/reparse.h"
#include "experiments/vote_source.h"

namespace qlora {

struct ImportReport {
  int64_t files = 0, new_files = 0, votes = 0, invalid = 0;
};
// Reads all files, then stores all of them or none.
ImportReport import_votes(const VoteSource&);

// Writes the votes in a layout (layouts.h) into a folder, which is made. Returns the paths. Throws
// Error(usage) when one of the files is there already, and when the layout cannot hold a vote; then nothing
// is written.
std::vector<std::string> convert_votes(const VoteSource&, const std::string& layout, const Path& folder);

// Parses again, by parser_for() unless one is named. Of files: writes them, as read but with the recovered
// verdicts, into `folder` unless it is empty. Of the store: keeps the readings there beside what the files
// say.
ReparseReport reparse_votes(const VoteSource&, const std::string& parser, const Path& folder);

std::string print_reparse(const ReparseReport&);
Json reparse_json(const ReparseReport&);

}  // namespace qlora
