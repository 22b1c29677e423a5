#pragma once
// Results in the layout of lm-evaluation-harness 0.4.13, which leaderboards and scripts read:
// OUT/MODEL/results_DATE.json with the scores of all tasks, and OUT/MODEL/samples_TASK_DATE.jsonl with a line
// for each filter and item. Every key of the harness' files is there; null where there is nothing to say.

#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eval/tasks/run_task.h"

namespace qlora {

// What the files say of the run besides the scores.
struct HarnessInfo {
  std::string model;  // path or name
  std::string
      adapter;  // of what is scored: then this names the model, as the harness has it; empty: the base
  std::vector<std::pair<std::string, std::string>> model_args = {};  // further ones: quantization
  std::string model_sha, peft_sha = {};  // of the base's content, of the adapter's weights
  int64_t parameters = 0;  // of the base and the adapter, whatever the base's weights are stored as
  std::string dtype, device;
  std::string program, commit;  // version and build; the commit alone
  std::string started;          // ISO 8601, UTC
  std::string date;             // of the files: ISO 8601; they have - for : and no zone
  int64_t limit = 0;
  std::optional<int64_t> fewshot_seed = {};  // none: no examples were drawn
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
  std::string part = {};   // only the items of this group, as a task NAME_PART
};

// Scores over several tasks: MMLU is a group of four groups of subjects, and each subject is a task. A group
// comes before the groups that it has, and, as in the harness, shots and directions of metrics are told of
// groups of tasks alone.
struct HarnessGroup {
  std::string name, alias, version;
  std::vector<std::string> members;  // tasks or groups
  std::vector<TaskScore> scores;
};

struct HarnessParts {
  std::vector<HarnessTask> tasks;
  std::vector<HarnessGroup> groups = {};
};
// The task as the harness has it: itself, or a group of its parts that were asked something
// (Task::group_version).
HarnessParts harness_parts(const HarnessTask&);

// `hashes`: of the tasks' samples, by name.
std::string harness_results(const HarnessInfo&, const Tokenizer&, std::span<const HarnessTask>,
                            std::span<const HarnessGroup>, const std::map<std::string, std::string>& hashes);
// The folder that the harness gives a model's files.
std::string harness_folder(const HarnessInfo&);
// Writes both kinds of files; returns the folder OUT/MODEL.
Path write_harness_files(const Path& out, const HarnessInfo&, const Tokenizer&, std::span<const HarnessTask>,
                         std::span<const HarnessGroup> = {});

}  // namespace qlora
