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

}  // namespace qlora
