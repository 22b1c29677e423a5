// BoolQ (Clark et al. 2019): a yes-or-no question about a passage.
#include "eval/tasks/task.h"

namespace qlora {
namespace {

TaskItem item_of(const DataRow& row) {
  const std::string context = row.text("passage") + "\nQuestion: " + row.text("question") + "?\nAnswer:";
  return choice_item(row, context, {"no", "yes"}, row.integer(row.has("label") ? "label" : "answer"));
}

}  // namespace

Task boolq() {
  Task task = choice_task("boolq", "2.0", "yes or no, about a passage",
                          {"val.jsonl", "dev.jsonl", "validation.jsonl"}, items_of_rows<item_of>);
  task.metrics[1].in_harness = false;
  return task;
}

}  // namespace qlora
