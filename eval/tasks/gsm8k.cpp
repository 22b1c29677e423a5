// GSM8K (Cobbe et al. 2021): school mathematics in words; the number at the end counts.
#include "core/text/unicode.h"
#include "eval/tasks/answers.h"
#include "eval/tasks/task.h"

namespace qlora {
namespace {

TaskItem item_of(const DataRow& row) {
  return text_answer_item(row, "Question: " + row.text("question") + "\nAnswer:", {row.text("answer")});
}

// The number after `#### `, as the data set writes solutions.
std::string strict(const TaskItem&, const std::string& text) {
  static const Regex pattern(R"((?<=#### )-?[0-9.,]+)", "gsm8k");
  return first_match(pattern, text);
}

// The last thing that looks like a number.
std::string flexible(const TaskItem&, const std::string& text) {
  static const Regex pattern(R"((-?[$0-9.,]{2,})|(-?[0-9]+))", "gsm8k");
  return last_match(pattern, text);
}

// What both sides are compared by: no commas, no dollars, nothing up to the last `#### `, no final period.
std::string plain(std::string_view text) {
  std::string kept = without_characters(text, ",$");
  if (const size_t mark = kept.rfind("#### "); mark != std::string::npos) kept = kept.substr(mark + 5);
  return lowercase(without_final_period(kept));
}

MetricValue exact_match(const Metric&, const TaskItem& item, const TaskAnswer& answer) {
  return {plain(answer.text) == plain(item.targets[0]) ? 1.0 : 0.0};
}

}  // namespace

Task gsm8k() {
  Task task{.name = "gsm8k", .version = "3.0", .kind = TaskKind::generate};
  task.about = "school mathematics in words, the final number";
  task.files = {"test.jsonl"};
  task.shots = 5;
  task.draw = FewshotDraw::drawn;
  task.metrics = {{"exact_match", Aggregation::mean, true, "strict-match"},
                  {"exact_match", Aggregation::mean, true, "flexible-extract"}};
  task.items = items_of_rows<item_of>;
  task.value = exact_match;
  task.filters = {{"strict-match", strict}, {"flexible-extract", flexible}};
  task.until = {"Question:", "</s>", "<|im_end|>"};
  return task;
}

}  // namespace qlora
