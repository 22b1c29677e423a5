// GLUE (Wang et al. 2018) as questions. Rows are those of the hub (label numbers) or of the original releases
// (label words); AdvGLUE's one file for all tasks is read too.
#include "eval/tasks/task.h"

namespace qlora {
namespace {

using Words = std::vector<std::string>;

// How one of the tasks renders a row.
using Render = std::string (*)(const DataRow&);

template <Render render>
std::vector<TaskItem> items_of(const std::vector<DataRow>& rows, const Words& choices, const Words& labels) {
  std::vector<TaskItem> all;
  for (const DataRow& row : rows)
    all.push_back(choice_item(row, render(row), choices, row.label("label", labels)));
  return numbered(std::move(all));
}

std::string sentence_question(const DataRow& row) {
  return row.text("sentence") + "\nQuestion: Is this sentence positive or negative?\nAnswer:";
}
std::string acceptable_question(const DataRow& row) {
  return row.text("sentence") + "\nQuestion: Does this sentence make sense?\nAnswer:";
}
std::string entailment_question(const DataRow& row) {
  return row.text("sentence1") + "\nQuestion: " + row.text("sentence2") + " True or False?\nAnswer:";
}
std::string mnli_question(const DataRow& row) {
  std::string hypothesis = trim(row.text("hypothesis"));
  if (!hypothesis.ends_with('.')) hypothesis += '.';
  return row.text("premise") + "\nQuestion: " + hypothesis + " True, False or Neither?\nAnswer:";
}
std::string qnli_question(const DataRow& row) {
  return row.text("question") + "\n" + row.text("sentence") +
         "\nQuestion: Does this response answer the question?\nAnswer:";
}
std::string qqp_question(const DataRow& row) {
  return "Question 1: " + row.text("question1") + "\nQuestion 2: " + row.text("question2") +
         "\nQuestion: Do both questions ask the same thing?\nAnswer:";
}
std::string mrpc_question(const DataRow& row) {
  return "Sentence 1: " + row.text("sentence1") + "\nSentence 2: " + row.text("sentence2") +
         "\nQuestion: Do both sentences mean the same thing?\nAnswer:";
}

const Words kEntailment = {"entailment", "neutral", "contradiction"};
const Words kTwoWayEntailment = {"entailment", "not_entailment"};
const Words kNoYes = {"0", "1"};

// SST-2 also comes as lines `sentence TAB label` without a first row of names.
std::vector<TaskItem> sst2_items(TaskSource& source) {
  const Words choices = {"negative", "positive"};
  const std::vector<DataRow> rows = source.rows("sst2");
  if (!rows.front().has("line")) return items_of<sentence_question>(rows, choices, kNoYes);
  std::vector<TaskItem> all;
  for (const DataRow& row : rows) {
    const std::string line = row.text("line");
    const size_t tab = line.rfind('\t');
    if (tab == std::string::npos || (line.substr(tab) != "\t0" && line.substr(tab) != "\t1"))
      row.wrong("line", "a sentence, a tab, and 0 or 1");
    all.push_back(choice_item(
        row, line.substr(0, tab) + "\nQuestion: Is this sentence positive or negative?\nAnswer:", choices,
        line.back() - '0'));
  }
  return numbered(std::move(all));
}

Task glue(std::string name, std::string about, Words files, std::vector<TaskItem> (*items)(TaskSource&)) {
  files.push_back("dev.json");  // AdvGLUE
  Task task = choice_task(std::move(name), "1.0", std::move(about), std::move(files), items);
  task.metrics = {{"acc"}};
  return task;
}

}  // namespace

Task sst2() {
  return glue("sst2", "is a sentence positive or negative", {"SST-2/dev.tsv"}, sst2_items);
}

Task mnli() {
  return glue(
      "mnli", "does a premise entail a hypothesis, matched part", {"mnli_validation_matched.jsonl"},
      [](TaskSource& source) {
        return items_of<mnli_question>(source.rows("mnli"), {"True", "Neither", "False"}, kEntailment);
      });
}

Task mnli_mismatch() {
  return glue(
      "mnli_mismatch", "does a premise entail a hypothesis, mismatched part",
      {"mnli_validation_mismatched.jsonl"}, [](TaskSource& source) {
        return items_of<mnli_question>(source.rows("mnli-mm"), {"True", "Neither", "False"}, kEntailment);
      });
}

Task rte() {
  return glue("rte", "does one sentence entail another", {"RTE/dev.tsv"}, [](TaskSource& source) {
    return items_of<entailment_question>(source.rows("rte"), {"True", "False"}, kTwoWayEntailment);
  });
}

Task wnli() {
  Task task = glue("wnli", "whom a pronoun means, as entailment", {"WNLI/dev.tsv"}, [](TaskSource& source) {
    return items_of<entailment_question>(source.rows("wnli"), {"False", "True"}, kNoYes);
  });
  task.version = "2.0";
  return task;
}

Task qnli() {
  return glue("qnli", "does a sentence answer a question", {"QNLI/dev.tsv"}, [](TaskSource& source) {
    return items_of<qnli_question>(source.rows("qnli"), {"yes", "no"}, kTwoWayEntailment);
  });
}

Task qqp() {
  Task task = glue("qqp", "do two questions ask the same", {}, [](TaskSource& source) {
    return items_of<qqp_question>(source.rows("qqp"), {"no", "yes"}, kNoYes);
  });
  task.version = "2.0";
  task.metrics = {{"acc"}, {"f1", Aggregation::f1}};
  return task;
}

Task mrpc() {
  Task task = glue("mrpc", "do two sentences mean the same", {}, [](TaskSource& source) {
    return items_of<mrpc_question>(source.rows("mrpc"), {"no", "yes"}, kNoYes);
  });
  task.metrics = {{"acc"}, {"f1", Aggregation::f1}};
  return task;
}

Task cola() {
  Task task = glue("cola", "is a sentence grammatical", {}, [](TaskSource& source) {
    return items_of<acceptable_question>(source.rows("cola"), {"no", "yes"}, kNoYes);
  });
  task.metrics = {{"mcc", Aggregation::mcc}};
  return task;
}

}  // namespace qlora
