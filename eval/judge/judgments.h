#pragma once
// Judgment files in any layout of layouts.h, JSON lines, an array or CSV, plain or gzip: found, read,
// checked, and made into the matches that ratings are computed from.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"
#include "core/base/hash.h"
#include "eval/judge/file_name.h"
#include "eval/judge/vote.h"
#include "eval/ratings/elo.h"

namespace qlora {

class AnswerBook;

// How it is known which answer was shown first.
enum class OrderSource {
  row,         // the row says so (FastChat, Arena), or it is unknown (AlpacaEval)
  name,        // the file's name, for want of better
  answer_ids,  // the answers' ids; `reversed` tells whether the name had it wrong
};

struct JudgmentFile {
  std::string path;
  Digest content{};         // of the (unpacked) bytes
  std::string_view layout;  // of layouts.h
  OrderSource order = OrderSource::row;
  bool reversed = false;
  std::vector<Vote> votes;  // in the order of the file
};

// Reads one file; systems of a named layout in the order of the name. Throws Error(data) with file and line
// for anything that does not fit (see rows.h and the layouts), for verdicts and points in one file, and for a
// review that stands in it twice.
JudgmentFile read_judgments(const Path&);

// The same of a file's (unpacked) content.
JudgmentFile parse_judgments(const Path&, std::string_view content);

// Files, folders (what in them has the name of a judgment file: "-vs-" or "_vs_", "_pair", "_single",
// "battle", "annotations", ending in .jsonl, .json or either with .gz; or is_human_csv()) and patterns with *
// and ? in the last part, sorted. Throws Error(data) when one of them matches nothing; warns of files of
// judgments in a folder that have other names.
std::vector<Path> find_judgment_files(std::span<const std::string> files_or_patterns);

// Refuses, with Error(data) naming both lines, two files in which one judge, by one prompt, judges one pair
// in one order on one item: such votes would count twice, or one of the files has a wrong name.
void check_claims(std::span<const JudgmentFile>);

// Finds and reads; then puts right who was shown first by the answers' ids (orient_by_answer_ids(); `answers`
// may be null), and checks claims. Reading comes before anything else: a bad file leaves nothing behind.
std::vector<JudgmentFile> load_judgments(std::span<const std::string> files_or_patterns,
                                         const AnswerBook* answers = nullptr);

// How several votes on one question of one file become matches.
enum class VoteRule {
  each,      // every vote is a match
  majority,  // one match a question: more than half of the valid votes decide, else a tie
};
VoteRule vote_rule_from(const std::string& name);  // each | majority; throws Error(usage)
Verdict majority_of(std::span<const Verdict>);     // invalid when none is valid

// Gathers the matches of files: votes on two answers; both_bad counts as a tie. `systems` empty = all;
// otherwise only matches between those (aliases accepted). Throws Error(data) when nothing is left,
// Error(usage) for a system that no file has (find_system() in known_systems.h).
Matches gather_matches(std::span<const JudgmentFile>, VoteRule, std::span<const std::string> systems = {},
                       std::string_view asked_by = "");

// The votes between these systems (all when empty), without the others; unknown systems as above.
std::vector<JudgmentFile> only_between(std::span<const JudgmentFile>, std::span<const std::string> systems,
                                       std::string_view asked_by = "");
// The votes by one judge. Throws Error(usage) when none is by it, with the nearest name.
std::vector<JudgmentFile> only_by(std::span<const JudgmentFile>, const std::string& judge);

// compute_elo() of them, with each system's invalid votes filled in.
EloReport rate(const Matches&, const EloOptions&);

}  // namespace qlora
