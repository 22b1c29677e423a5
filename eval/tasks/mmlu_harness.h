#pragma once
// Answers to MMLU in lm-evaluation-harness' files (harness_files.h): each subject is a task `mmlu_SUBJECT`
// with a file of samples of its own, and the groups `mmlu`, `mmlu_stem`, `mmlu_humanities`, ... have their
// scores over questions, by the harness' map of subjects.

#include "eval/tasks/harness_files.h"
#include "eval/tasks/mmlu.h"

namespace qlora {

struct MmluHarness {
  struct Subject {
    std::string name;
    size_t questions = 0;  // in the data; fewer may have been asked
    Task task;
    TaskData data;
    TaskPlan plan;
    TaskReport report;
  };
  std::vector<Subject> subjects;  // that were asked something
  std::vector<HarnessGroup> groups;
  std::vector<HarnessTask> views() const;  // into `subjects`
};

// Prompts are rendered again with the shots that fitted; tokens that were cut beyond whole shots stand in the
// text. Versions are the harness' own where the protocol is its, and else the protocol's name.
MmluHarness mmlu_harness(const Path& path, const MmluData&, const MmluOptions&, const Tokenizer&,
                         const MmluReport&);

}  // namespace qlora
