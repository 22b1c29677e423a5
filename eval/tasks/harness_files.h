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
  std::string alias = {};  // empty: the task's name
  size_t original = 0;     // items in the data; 0: as many as `data` has
};

// Scores over several tasks: MMLU is a group of four groups of subjects, and each subject is a task. A group
// comes before the groups that it has, and, as in the harness, shots and directions of metrics are told of
// groups of tasks alone.
struct HarnessGroup {
  std::string name, alias, version;
  std::vector<std::string> members;  // tasks or groups
  std::vector<TaskScore> scores;
};

std::string harness_results(const HarnessInfo&, std::span<const HarnessTask>,
                            std::span<const HarnessGroup> = {});
std::string harness_samples(const HarnessTask&);
// Writes both kinds of files; returns the folder OUT/MODEL.
Path write_harness_files(const Path& out, const HarnessInfo&, std::span<const HarnessTask>,
                         std::span<const HarnessGroup> = {});

}  // namespace qlora
