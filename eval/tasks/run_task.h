#pragma once
// Running a task: its data, its requests, a model's answers, its scores.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/lm.h"
#include "eval/tasks/task.h"

namespace qlora {

struct TaskOptions {
  int64_t shots = -1;                    // few-shot examples; -1: as many as the task says
  int64_t limit = 0;                     // items, the first in file order (of each group of a folder); 0: all
  std::vector<std::string> groups = {};  // only these; empty: all
  std::string examples = {};             // file of the few-shot examples; empty: NAME_train beside the data
  // lm_eval: the harness' choice of them for the task (Task::draw); first_n: the first rows before every
  // question; empty: lm_eval where the harness has the task.
  std::string fewshot_sampler = {};
  int64_t fewshot_seed = 1234;  // of examples that are drawn
  int64_t max_length = 0;       // tokens of a request; 0: the model's
  int64_t stride = 0;           // rolling: tokens that each window after the first adds; 0: max_length
  int64_t max_new_tokens = 0;   // of a generated text; 0: as the task says
};

struct TaskData {
  Path path;                       // the file or folder that was read
  std::vector<TaskItem> items;     // all of them
  std::vector<TaskItem> examples;  // what is shown, or drawn from: choose_examples() in fewshot.h
  int64_t shots = 0;               // examples before a question
  FewshotDraw draw = FewshotDraw::first;
  uint64_t fewshot_seed = 0;
  std::string content_hash;   // of the data without the examples
  std::string examples_hash;  // empty without examples
};
// `path`: a file, or a folder with one of the task's files (NAME.jsonl, .json, .csv, .tsv, .txt, .parquet,
// each also .gz, or what Task::files says). Throws Error(data) or Error(usage).
TaskData read_task(const Task&, const Path& path, const TaskOptions&);

// One request of an item. Tokens follow the rule of lm-evaluation-harness: white space at the end of a
// context moves to the continuation; the continuation is what encoding the whole adds to encoding the
// context; an empty context is one BOS (or EOS) that is not scored. A BOS that the tokenizer adds is never
// doubled. A request that is longer than the model's context loses tokens at its beginning.
struct TaskRequest {
  size_t item = 0;
  std::string context, continuation;  // as text; generate: no continuation
  std::vector<int32_t> context_tokens, continuation_tokens;
  bool cut = false;
};

// What is asked of one model. An item's requests are neighbours, in the order of its choices; rolling: one
// for each window of the text. The first window has max_length tokens of input, every other one adds `stride`
// tokens and has as much context before them as fits; every token is scored once.
struct TaskPlan {
  std::vector<size_t> asked;  // items
  std::vector<TaskRequest> requests;
  std::string request_hash;  // SHA-256 over all contexts and continuations: names what was asked
  int64_t shots = 0, max_new_tokens = 0;
  int64_t cut = 0, longest = 0;  // requests, tokens
  bool partial = false;
};
TaskPlan plan_task(const Task&, const TaskData&, const TaskOptions&, const Tokenizer&,
                   int64_t context_length);

// The tokens of a pair by the rule above, before cutting.
TaskRequest encode_pair(const Tokenizer&, const std::string& context, const std::string& continuation);
// SHA-256 of an item's requests.
std::string item_hash(std::span<const TaskRequest>);

// What a model said to one item, as it is stored: an item's values are computed from these, so that a report
// can be made again without the model.
struct ItemAnswer {
  std::vector<float> log_likelihoods;  // one a continuation; rolling: of the text
  std::vector<bool> greedy;            // one a continuation
  std::string text;                    // generate: up to the first stop string
};

struct TaskItemResult {
  size_t item = 0;  // of TaskData::items
  std::string prompt_sha256;
  int64_t prediction = -1;  // of a choice; continuation: 0 when greedy
  std::vector<float> log_likelihoods;
  std::vector<bool> greedy;
  std::string text;                    // generate
  std::vector<std::string> extracted;  // generate: one a filter
  std::vector<MetricValue> values;     // one a metric
};

struct TaskScore {
  std::string metric, filter, group;  // empty group: the whole task
  int64_t n = 0;
  double value = 0;                      // NaN where it is undefined
  std::optional<double> standard_error;  // of means of at least two items
  bool higher_is_better = true;
  std::string note = {};  // why the value is undefined, or is what it is by definition alone; else empty
};

struct TaskReport {
  std::vector<TaskItemResult> results;  // in order of TaskPlan::asked
  std::vector<TaskScore> scores;        // the whole task first, then its groups in order of their names
};

// Scores several subjects (adapters of the Lm; -1 = base) in one pooled pass; one report each, same order.
// For tasks that generate, the Lm needs the tokenizer (ModelLmOptions::tokenizer).
std::vector<TaskReport> run_task(Lm&, const Tokenizer&, const Task&, const TaskData&, const TaskPlan&,
                                 std::span<const SubjectIndex>);

// A report of answers that are there already: one an item that is asked, in order.
TaskReport report_task(const Task&, const TaskData&, const TaskPlan&, std::span<const ItemAnswer>);

// From results to scores.
std::vector<TaskScore> score_task(const Task&, const TaskData&, std::span<const TaskItemResult>);
// The text before the stop string that begins first.
std::string cut_at_stops(std::string text, std::span<const std::string> stops);

}  // namespace qlora
