// LAMBADA (Paperno et al. 2016) in OpenAI's form: the last word of a passage.
#include "eval/tasks/task.h"

namespace qlora {
namespace {

TaskItem item_of(const DataRow& row) {
  const std::string text = row.text("text");
  const size_t last = text.rfind(' ');
  if (last == std::string::npos) row.wrong("text", "a text of several words");
  TaskItem item;
  item.contexts = {text.substr(0, last)};
  item.continuations = {text.substr(last)};
  item.lengths = {code_points(text) - code_points(item.contexts[0])};
  item.document = row.json();
  return item;
}

MetricValue value(const Metric& metric, const TaskItem&, const TaskAnswer& answer) {
  if (metric.name == "acc") return {answer.greedy[0] ? 1.0 : 0.0};
  return {answer.log_likelihoods[0]};
}

}  // namespace

Task lambada_openai() {
  Task task{.name = "lambada_openai", .version = "1.0", .kind = TaskKind::continuation};
  task.draw = FewshotDraw::drawn;
  task.about = "the last word of a passage";
  task.files = {"lambada_test.jsonl", "lambada_test_en.jsonl", "test.jsonl"};
  task.metrics = {{"perplexity", Aggregation::perplexity, false}, {"acc"}};
  task.items = items_of_rows<item_of>;
  task.value = value;
  return task;
}

}  // namespace qlora
