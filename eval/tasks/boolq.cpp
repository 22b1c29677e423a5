// BoolQ (Clark et al. 2019): a yes-or-no question about a passage.
#include "eval/tasks/task.h"

namespace qlora {
namespace {

std::vector<TaskItem> items(TaskSource& source) {
  std::vector<TaskItem> all;
  for (const DataRow& row : source.rows()) {
    const std::string context = row.text("passage") + "\nQuestion: " + row.text("question") + "?\nAnswer:";
    all.push_back(
        choice_item(row, context, {"no", "yes"}, row.integer(row.has("label") ? "label" : "answer")));
  }
  return numbered(std::move(all));
}

}  // namespace

Task boolq() {
  Task task{.name = "boolq", .version = "2.0"};
  task.about = "yes or no, about a passage";
  task.files = {"val.jsonl", "dev.jsonl", "validation.jsonl"};
  task.metrics = {{"acc"}};
  task.items = items;
  task.value = choice_value;
  return task;
}

}  // namespace qlora
