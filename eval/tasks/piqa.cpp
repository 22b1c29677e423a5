// PIQA (Bisk et al. 2020): which of two ways reaches a goal in the physical world.
#include "eval/tasks/task.h"

namespace qlora {
namespace {

// The original release keeps labels in a file of their own beside the rows: valid.jsonl, valid-labels.lst.
std::vector<TaskItem> items(TaskSource& source) {
  const std::vector<DataRow> rows = source.rows();
  std::vector<std::string> labels;
  const std::string label_file = source.path().stem().string() + "-labels.lst";
  if (!rows.front().has("label")) {
    const auto text = source.beside(label_file);
    QLORA_CHECK(text.has_value(), data, "{}: rows without `label`, and no {} beside the file",
                source.path().string(), label_file);
    labels = split(trim(*text), '\n');
    QLORA_CHECK(labels.size() == rows.size(), data, "{}: {} labels for {} rows", label_file, labels.size(),
                rows.size());
  }
  std::vector<TaskItem> all;
  for (const DataRow& row : rows) {
    int64_t gold = 0;
    if (labels.empty()) {
      gold = row.integer("label");
    } else {
      const std::string label = trim(labels[all.size()]);
      QLORA_CHECK(label == "0" || label == "1", data, "{}:{}: expected 0 or 1, found `{}`", label_file,
                  all.size() + 1, label);
      gold = label == "1" ? 1 : 0;
    }
    all.push_back(choice_item(
        row, "Question: " + row.text("goal") + "\nAnswer:", {row.text("sol1"), row.text("sol2")}, gold));
  }
  return numbered(std::move(all));
}

}  // namespace

Task piqa() {
  return choice_task("piqa", "1.0", "which of two ways reaches a goal", {"valid.jsonl", "validation.jsonl"},
                     items);
}

}  // namespace qlora
