#pragma once
// Results in the layout of lm-evaluation-harness, which leaderboards and scripts read:
// OUT/MODEL/results_DATE.json with the scores of all tasks, and OUT/MODEL/samples_TASK_DATE.jsonl with a line
// for each item (and filter).

#include <span>
#include <string>

#include "eval/tasks/run_task.h"

namespace qlora {

// What the files say of the run besides the scores.
struct HarnessInfo {
  std::string model;       // path or name; MODEL is it without characters that names of files cannot have
  std::string model_args;  // adapter, quantization
  std::string dtype, device;
  std::string program;  // version and commit
  std::string date;     // ISO 8601; the files have - for :
  int64_t limit = 0;
  double seconds = 0;
  int64_t max_length = 0;
  // Where prompts stand in a conversation: its template, and what precedes everything.
  std::string chat_template = {}, system_instruction = {};
  bool fewshot_as_multiturn = false;
};

struct HarnessTask {
  const Task* task = nullptr;
  const TaskData* data = nullptr;
  const TaskPlan* plan = nullptr;
  const TaskReport* report = nullptr;
};

std::string harness_results(const HarnessInfo&, std::span<const HarnessTask>);
std::string harness_samples(const HarnessTask&);
// Writes both kinds of files; returns the folder OUT/MODEL.
Path write_harness_files(const Path& out, const HarnessInfo&, std::span<const HarnessTask>);

}  // namespace qlora
