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
// Throws Error(data) with file and row, Error(usage) for a CSV, which is one file of a tree.
void read_mmlu_rows(const Path& file, Sha256& content, MmluRows& into);

// Whether the data are rendered prompts.
bool is_rendered(const MmluData&);
bool is_rendered(const MmluRows&);

// The file of rendered prompts in a folder (QLoRA's data/mmlu) by the shots and the split in its name, which
// may say more (".derived") before its ending; empty: there is none. Throws Error(data) when two may be
// meant.
Path rendered_file(const Path& folder, const MmluOptions&);

// The split to ask where none was named: the one that a file of rendered prompts has in its name, or the only
// one of which a folder has such a file (with so many shots) and nothing of the other; else the options'.
std::string rendered_split(const Path& data, const MmluOptions&);

// Rendered prompts are asked as they stand, so that protocol, split and shots are theirs: throws Error(usage)
// when the options are others. Rows that are not rendered pass.
void check_rendered(const Path& file, const MmluRows&, const MmluOptions&);

}  // namespace qlora
