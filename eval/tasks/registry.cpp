#include <algorithm>

#include "core/base/names.h"
#include "eval/tasks/mmlu_protocol.h"

namespace qlora {

std::span<const Task> tasks() {
  static const std::vector<Task> kTasks = {
      arc_challenge(),
      arc_easy(),
      bbh_cot_fewshot(),
      bbh_cot_zeroshot(),
      bbh_fewshot(),
      bbh_zeroshot(),
      boolq(),
      cola(),
      crows_pairs_english(),
      gsm8k(),
      hellaswag(),
      lambada_openai(),
      mnli(),
      mnli_mismatch(),
      mrpc(),
      perplexity(),
      piqa(),
      qnli(),
      qqp(),
      rte(),
      samsum(),
      sst2(),
      stsb(),
      supernatural_instructions(),
      truthfulqa_mc1(),
      truthfulqa_mc2(),
      wikitext(),
      winogrande(),
      wnli(),
  };
  return kTasks;
}

std::vector<ListedTask> listed_tasks() {
  std::vector<ListedTask> list = listed_mmlu();
  for (const Task& task : tasks()) {
    ListedTask& line = list.emplace_back(
        ListedTask{task.name, task.version, task.protocol, task.kind, task.shots, {}, task.about});
    for (const Metric& m : task.metrics)
      line.metrics.push_back(m.filter == "none" ? m.name : m.name + "[" + m.filter + "]");
  }
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return list;
}

const Task& find_task(const std::string& name) {
  std::vector<std::string> known;
  for (const Task& task : tasks()) {
    if (task.name == name) return task;
    known.push_back(task.name);
  }
  fail(ErrorKind::usage, "{}", unknown_name("task", name, known));
}

const char* name_of(TaskKind kind) {
  switch (kind) {
    case TaskKind::choice:
      return "choice";
    case TaskKind::continuation:
      return "continuation";
    case TaskKind::rolling:
      return "rolling";
    case TaskKind::generate:
      return "generate";
  }
  return "";
}

TaskItem choice_item(const DataRow& row, std::string context, const std::vector<std::string>& choices,
                     int64_t gold, const std::string& delimiter) {
  QLORA_CHECK(gold >= 0 && gold < static_cast<int64_t>(choices.size()), data,
              "{}: the right answer is number {} of {} choices", row.where().text(), gold, choices.size());
  TaskItem item;
  item.contexts = {std::move(context)};
  for (const std::string& choice : choices) {
    item.continuations.push_back(delimiter + choice);
    item.lengths.push_back(code_points(choice));
  }
  item.gold = gold;
  item.document = row.json();
  return item;
}

Task choice_task(std::string name, std::string version, std::string about, std::vector<std::string> files,
                 std::vector<TaskItem> (*items)(TaskSource&)) {
  Task task{.name = std::move(name), .version = std::move(version)};
  task.about = std::move(about);
  task.files = std::move(files);
  task.draw = FewshotDraw::drawn_others;
  task.metrics = {{"acc"}, {"acc_norm"}};
  task.items = items;
  task.value = choice_value;
  return task;
}

TaskItem text_answer_item(const DataRow& row, std::string context, std::vector<std::string> targets) {
  if (targets.empty()) fail(ErrorKind::data, "{}: no right answer", row.where().text());
  TaskItem item = choice_item(row, std::move(context), {targets.front()}, 0);
  item.targets = std::move(targets);
  return item;
}

TaskItem text_item(std::string document, std::string text, std::string_view counted) {
  TaskItem item;
  item.contexts = {""};
  item.continuations = {std::move(text)};
  item.words = space_separated(counted);
  item.bytes = static_cast<int64_t>(counted.size());
  item.document = std::move(document);
  return item;
}

MetricValue rolling_value(const Metric& metric, const TaskItem& item, const TaskAnswer& answer) {
  const int64_t weight = metric.name.starts_with("token")  ? answer.scored_tokens
                         : metric.name.starts_with("word") ? item.words
                                                           : item.bytes;
  return {answer.log_likelihoods[0], static_cast<double>(weight)};
}

int64_t likeliest(const TaskAnswer& answer) {
  auto best = std::max_element(answer.log_likelihoods.begin(), answer.log_likelihoods.end());
  return best - answer.log_likelihoods.begin();
}

int64_t likeliest_by_length(const TaskItem& item, const TaskAnswer& answer) {
  int64_t best = 0;
  double best_score = 0;
  for (size_t i = 0; i < answer.log_likelihoods.size(); ++i) {
    const double score = answer.log_likelihoods[i] / static_cast<double>(item.lengths[i]);
    if (i > 0 && !(score > best_score)) continue;
    best = static_cast<int64_t>(i);
    best_score = score;
  }
  return best;
}

MetricValue choice_value(const Metric& metric, const TaskItem& item, const TaskAnswer& answer) {
  const int64_t chosen = metric.name == "acc_norm" ? likeliest_by_length(item, answer) : likeliest(answer);
  return {chosen == item.gold ? 1.0 : 0.0};
}

std::vector<TaskItem> numbered(std::vector<TaskItem> items) {
  for (size_t i = 0; i < items.size(); ++i) items[i].index = static_cast<int64_t>(i);
  return items;
}

}  // namespace qlora
