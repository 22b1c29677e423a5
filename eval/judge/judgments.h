#pragma once
// Files of pairwise judgments, in the layout of the QLoRA release (Dettmers et al. 2023, eval/ratings-gpt4)
// and of the human votes of PRD (Li et al. 2023, vicuna80/ratings-human): JSON lines, plain or gzip, one
// judgment a line,
//   {"question_id": 1, ..., "score": 1 | 2 | 3 | -1}
// 1: the first shown wins, 2: the second, 3: a tie, -1: no valid verdict.
// The names of the two systems stand in the file's name alone:
// FIRST-vs-SECOND-JUDGE-reviewer-threeclass.jsonl (or with underscores, as the release's program writes it).

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"
#include "core/base/hash.h"
#include "eval/ratings/elo.h"

namespace qlora {

struct JudgmentName {
  std::string first, second;  // systems, after system_alias(); `first` was shown first
  std::string judge;          // gpt-4, human, ...
};

// The name under which a system competes: the aliases of the release are folded
// ("30b-guanaco-vicuna-generations- topp0.9-temp0.7" = guanaco-33b, "answer_gpt35" = gpt-3.5, ...); other
// names stay as they are.
std::string system_alias(std::string_view name_in_file);

// Takes a file's name (without its folder) apart. Throws Error(data) with the expected form.
JudgmentName parse_judgment_name(std::string_view file_name);

// One line of a judgment file.
struct Judgment {
  std::string item;  // question_id or message_id, as text
  int score = 0;     // 1 | 2 | 3 | -1
  int line = 0;      // from 1
};

struct JudgmentFile {
  std::string path;
  Digest content{};  // of the (unpacked) bytes
  JudgmentName name;
  std::vector<Judgment> rows;
};

// Reads one file. Throws Error(data) with file and line: bad JSON, a row without question or score, a score
// other than 1, 2, 3, -1 (a pair of 10-point scores is another kind of file).
JudgmentFile read_judgments(const Path&);

// Files, folders (their *.jsonl and *.jsonl.gz with "-vs-" or "_vs_" in the name) and patterns with * and ?
// in the last part, sorted. Throws Error(data) when one of them matches nothing.
std::vector<Path> find_judgment_files(std::span<const std::string> files_or_patterns);

// How several votes on one question of one file become matches.
enum class VoteRule {
  each,      // every row is a match
  majority,  // one match a question: more than half of the valid votes decide, else a tie
};
VoteRule vote_rule_from(const std::string& name);  // each | majority; throws Error(usage)

// Gathers the matches of files. `systems` empty = all; otherwise only matches between those (aliases
// accepted). Throws Error(data) when nothing is left, Error(usage) for a system that no file has (with the
// nearest name).
Matches gather_matches(std::span<const JudgmentFile>, VoteRule, std::span<const std::string> systems = {});

// compute_elo() of them, with each system's invalid votes filled in.
EloReport rate(const Matches&, const EloOptions&);

}  // namespace qlora
