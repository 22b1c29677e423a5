#pragma once
// MMLU questions that lie as rows of JSON, all subjects in one file.

#include <map>

#include "core/base/hash.h"
#include "eval/tasks/mmlu_data.h"

namespace qlora {

using MmluRows = std::map<std::string, std::vector<MmluQuestion>>;  // by subject, in file order

// Reads one JSON object a line, or a list of objects (.gz: unpacked); content is fed the file's name and
// bytes.
//   {"question", "subject", "choices": [4], "answer": 0..3 or "A".."D"}   as in the data set cais/mmlu
//   {"doc": {...}}                                                        the same inside lm-eval's samples
//   {"subject", "input", "output"}                                        QLoRA's: a rendered prompt and its
//   letter
// Throws Error(data) with file and row.
void read_mmlu_rows(const Path& file, Sha256& content, MmluRows& into);

// Whether the data are rendered prompts.
bool is_rendered(const MmluData&);
bool is_rendered(const MmluRows&);

// The split that a file of rendered prompts has in its name: "val" or "test"; else, and for any other data,
// `otherwise`.
std::string rendered_split(const Path& file, const std::string& otherwise);

// Rendered prompts are asked as they stand, so that protocol, split and shots are theirs: throws Error(usage)
// when the options are others. Rows that are not rendered pass.
void check_rendered(const Path& file, const MmluRows&, const MmluOptions&);

}  // namespace qlora
