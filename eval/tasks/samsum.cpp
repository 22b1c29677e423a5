// SAMSum (Gliwa et al. 2019): the summary of a chat, scored by ROUGE with and without stemming. The harness
// has no such task: the prompt is our own.
#include "eval/metrics/rouge.h"
#include "eval/tasks/task.h"

namespace qlora {
namespace {

TaskItem item_of(const DataRow& row, const std::string& dialogue, const std::string& summary) {
  return text_answer_item(row, "Conversation:\n" + dialogue + "\nSummary:", {summary});
}

// {"dialogue", "summary"}; or one dialogue a line in NAME.src or .txt, its summary on the same line of
// NAME.tgt.
std::vector<TaskItem> items(TaskSource& source) {
  std::vector<TaskItem> all;
  if (source.path().extension() != ".src") {
    for (const DataRow& row : source.rows()) {
      const std::string dialogue = replace_all(row.text("dialogue"), "\r\n", "\n");
      all.push_back(item_of(row, dialogue, row.text("summary")));
    }
    return numbered(std::move(all));
  }
  const std::string targets = source.path().stem().string() + ".tgt";
  const auto text = source.beside(targets);
  QLORA_CHECK(text.has_value(), data, "{}: no {} with the summaries beside it", source.path().string(),
              targets);
  const std::vector<DataRow> rows = source.lines_of(source.path());
  const std::vector<std::string> summaries = split(trim(*text), '\n');
  QLORA_CHECK(summaries.size() == rows.size(), data, "{}: {} summaries for {} dialogues", targets,
              summaries.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i)
    all.push_back(item_of(rows[i], rows[i].text("line"), trim(summaries[i])));
  return numbered(std::move(all));
}

double rouge_f(std::string_view name, const RougeScores& scores) {
  return name == "rouge1" ? scores.rouge1.f : name == "rouge2" ? scores.rouge2.f : scores.rouge_l.f;
}

MetricValue value(const Metric& metric, const TaskItem& item, const TaskAnswer& answer) {
  const RougeScores scores = rouge_best(item.targets, trim(answer.text), metric.filter == "stemmed");
  return {rouge_f(metric.name, scores)};
}

std::string as_it_is(const TaskItem&, const std::string& text) {
  return text;
}

}  // namespace

Task samsum() {
  Task task{.name = "samsum", .version = "1", .kind = TaskKind::generate};
  task.protocol = "qlora";
  task.about = "the summary of a chat, by ROUGE";
  task.files = {"test.src", "test.jsonl"};
  for (const char* filter : {"plain", "stemmed"})
    for (const char* metric : {"rouge1", "rouge2", "rougeL"})
      task.metrics.push_back({metric, Aggregation::mean, true, filter});
  task.items = items;
  task.value = value;
  task.filters = {{"plain", as_it_is}, {"stemmed", as_it_is}};
  task.until = {"\n\n", "\nConversation:"};
  task.max_new_tokens = 128;
  return task;
}

}  // namespace qlora
