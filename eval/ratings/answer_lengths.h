#pragma once
// The lengths of the answers that were judged, for ratings that control for them (Dubois et al. 2024 and the
// style control of Chatbot Arena use the same difference).

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/file.h"
#include "eval/ratings/match.h"

namespace qlora {

// A file; a folder's *.jsonl and *_outputs.json, plain or gzip; or a pattern with * and ? in the last part;
// sorted. Throws Error(data) when there is none.
std::vector<Path> find_answer_files(const std::string& file_or_pattern);

// Reads files of answers, JSON lines or an array, plain or gzip: {"question_id" or "message_id", and the
// answer in "generation_truncated", "generation", "text" or FastChat's "choices"[0]."turns"}; the system is
// the file's name, folded as in judgment files; such *.jsonl of systems that do not take part are passed
// over. Or rows of AlpacaEval, outputs and annotations (judge/alpaca_eval_outputs.h), which name their
// systems. Sets the `length` of every match to (a - b) / (a + b) for the code points a and b of the two
// answers. Throws Error(data) with file and line, for an answer that is judged but in no file, and for two
// different answers of a system to a prompt; Error(usage) for matches without prompts. `where_judged` tells
// the place of a judgment of a system's answer to a prompt, for the message about one that is in no file.
using PlaceOfJudgment = std::function<std::string(const std::string& system, const std::string& prompt)>;
void add_answer_lengths(Matches&, std::span<const Path> answer_files,
                        const PlaceOfJudgment& where_judged = {});

}  // namespace qlora
