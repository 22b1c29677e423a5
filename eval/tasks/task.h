#pragma once
// What a task is made of. A task renders its rows to requests and says what an answer is worth; running it is
// the same for all (run_task.h). Each is one function in a file of its own and one line in registry.cpp.
//
// Names, versions, prompts and metrics are those of lm-evaluation-harness 0.4.13, byte for byte, so that
// scores can be compared with published ones; a change of prompt or metric is a new version.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/tasks/rows.h"

namespace qlora {

// choice: the log-likelihood of each choice after a context. continuation: of one text, and whether it is the
// greedy one. rolling: of a whole text. generate: a text until a stop string.
enum class TaskKind { choice, continuation, rolling, generate };
const char* name_of(TaskKind);

// How lm-evaluation-harness chooses a question's examples among those of a file: the first rows for all; or
// for each question others, drawn at random; and then never the question itself.
enum class FewshotDraw { first, drawn, drawn_others };

// One question as the task renders it, before tokenization and without few-shot examples.
struct TaskItem {
  int64_t index = 0;                  // row in its file, from 0
  std::string group;                  // category for which scores are given too; mostly empty
  std::vector<std::string> contexts;  // one, or one a choice; empty text: scored from the first token
  std::vector<std::string>
      continuations;                 // what may follow, with the space before it; generate: the right one
  std::vector<int64_t> lengths;      // code points of each choice, by which acc_norm divides
  std::vector<int64_t> labels;       // which choices are true, where several are
  int64_t gold = 0;                  // the right choice
  double rating = 0;                 // what correlations compare values with
  std::vector<std::string> targets;  // generate: right answers
  int64_t words = 0, bytes = 0;      // rolling: what perplexities are divided by
  std::string document;              // the row, as JSON text
};

// What a model answered to one item.
struct TaskAnswer {
  std::vector<double> log_likelihoods;  // one a continuation; rolling: of the text
  std::vector<bool> greedy;
  int64_t scored_tokens = 0;  // rolling
  std::string text;           // generate: after the metric's filter
};

// How the values of items become the task's.
// mean; F1 of class 1 and Matthews' correlation of the predictions; correlations of the values with the
// items' ratings; exp(-mean); exp(-sum / sum of weights); and the same in bits; the plain mean of the groups'
// means, of the whole task alone. A correlation that is undefined (constant values, a single item) is 0, as
// Matthews'.
enum class Aggregation {
  mean,
  f1,
  mcc,
  pearson,
  spearman,
  perplexity,
  weighted_perplexity,
  weighted_bits,
  mean_of_groups
};

struct Metric {
  std::string name;
  Aggregation aggregation = Aggregation::mean;
  bool higher_is_better = true;
  std::string filter = "none";  // generate: which of the task's filters it reads
  bool in_harness = true;       // it is one that the harness has of the task
};

struct MetricValue {
  double value = 0, weight = 1;
};

// What is read out of a generated text.
struct AnswerFilter {
  std::string name;
  std::string (*extract)(const TaskItem&, const std::string& text);
};

struct Task {
  std::string name = {}, version = {};
  TaskKind kind = TaskKind::choice;
  std::string protocol = "lm_eval";     // whose prompts and metrics these are; qlora: our own
  std::string about = {};               // one line for users
  std::vector<std::string> files = {};  // what is looked for in a folder, besides NAME.jsonl and the like
  bool folder = false;                  // reads a whole folder
  int64_t shots = 0;                    // few-shot examples unless told otherwise
  bool takes_shots = true;
  FewshotDraw draw = FewshotDraw::first;
  // Where the harness has the parts of the task as tasks of their own: the version of the group that it is
  // there, and the filter whose scores the group has; empty: of all.
  std::string group_version = {}, group_filter = {};
  std::vector<Metric> metrics = {};
  std::vector<TaskItem> (*items)(TaskSource&) = nullptr;
  // One item's value in one metric. Aggregations f1 and mcc read the predictions instead.
  MetricValue (*value)(const Metric&, const TaskItem&, const TaskAnswer&) = nullptr;
  // generate:
  std::vector<AnswerFilter> filters = {};
  std::vector<std::string> until = {};  // stop strings, besides the end-of-sequence token
  int64_t max_new_tokens = 256;
};

// All of them, by name. find_task throws Error(usage) with the nearest name.
std::span<const Task> tasks();
const Task& find_task(const std::string& name);

// All that can be asked by name, one entry a task and protocol, in order of both: what `tasks()` has, and
// MMLU by each of its protocols, which is a task of its own making (mmlu.h).
struct ListedTask {
  std::string name, version, protocol;
  TaskKind kind = TaskKind::choice;
  int64_t shots = 0;
  std::vector<std::string> metrics;  // "acc"; with a filter "exact_match[strict-match]"
  std::string about;
};
std::vector<ListedTask> listed_tasks();

// ---- for the files of tasks

// A question with one context; `choices` follow it after `delimiter`.
TaskItem choice_item(const DataRow&, std::string context, const std::vector<std::string>& choices,
                     int64_t gold, const std::string& delimiter = " ");
// A task that asks which choice is likeliest: metrics acc and acc_norm, valued by choice_value, examples
// drawn as the harness does it for tasks that are asked on their validation split.
Task choice_task(std::string name, std::string version, std::string about, std::vector<std::string> files,
                 std::vector<TaskItem> (*items)(TaskSource&));
// acc: the first of the likeliest choices is right. acc_norm: likeliest by code point of the choice.
MetricValue choice_value(const Metric&, const TaskItem&, const TaskAnswer&);
// The first maximum; acc_norm's divides by the lengths.
int64_t likeliest(const TaskAnswer&);
int64_t likeliest_by_length(const TaskItem&, const TaskAnswer&);
// A text to be scored whole, from the row `document`; its perplexities are divided by the words and bytes of
// `counted`.
TaskItem text_item(std::string document, std::string text, std::string_view counted);
// The log-likelihood, and as weight what the metric's name begins with: token, word, or else bytes.
MetricValue rolling_value(const Metric&, const TaskItem&, const TaskAnswer&);
// A question whose answer is generated; the first of `targets` is shown in few-shot examples.
TaskItem text_answer_item(const DataRow&, std::string context, std::vector<std::string> targets);
// Gives items their rows in order, from 0.
std::vector<TaskItem> numbered(std::vector<TaskItem>);
// One item a row.
template <TaskItem (*item_of)(const DataRow&)>
std::vector<TaskItem> items_of_rows(TaskSource& source) {
  std::vector<TaskItem> all;
  for (const DataRow& row : source.rows()) all.push_back(item_of(row));
  return numbered(std::move(all));
}

Task arc_challenge();
Task arc_easy();
Task bbh_cot_fewshot();
Task bbh_cot_zeroshot();
Task bbh_fewshot();
Task bbh_zeroshot();
Task boolq();
Task cola();
Task crows_pairs_english();
Task gsm8k();
Task hellaswag();
Task lambada_openai();
Task mnli();
Task mnli_mismatch();
Task mrpc();
Task perplexity();
Task piqa();
Task qnli();
Task qqp();
Task rte();
Task samsum();
Task sst2();
Task stsb();
Task supernatural_instructions();
Task truthfulqa_mc1();
Task truthfulqa_mc2();
Task wikitext();
Task winogrande();
Task wnli();

}  // namespace qlora
