#pragma once
// Answers to MMLU as a task of lm-evaluation-harness' files (harness_files.h): `mmlu`, with a score of each
// subject.

#include "eval/tasks/harness_files.h"
#include "eval/tasks/mmlu.h"

namespace qlora {

struct MmluHarness {
  Task task;
  TaskData data;
  TaskPlan plan;
  TaskReport report;
  HarnessTask view() const { return {&task, &data, &plan, &report}; }
};

// Prompts are rendered again with the shots that fitted; tokens that were cut beyond whole shots stand in the
// text. The task's version is the protocol.
MmluHarness mmlu_harness(const Path& path, const MmluData&, const MmluOptions&, const Tokenizer&,
                         const MmluReport&);

}  // namespace qlora
