// SAMSum (Gliwa et al. 2019): the summary of a chat, scored by ROUGE with and without stemming. The harness
// has no such task: the prompt is our own.
#include "eval/tasks/answers.h"

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

}  // namespace

Task samsum() {
  Task task{.name = "samsum", .version = "1", .kind = TaskKind::generate};
  task.protocol = "qlora";
  task.about = "the summary of a chat, by ROUGE";
  task.files = {"test.src", "test.jsonl"};
  task.metrics = rouge_metrics();
  task.items = items;
  task.value = rouge_value;
  task.filters = {{"plain", whole_answer}, {"stemmed", whole_answer}};
  task.until = {"\n\n", "\nConversation:"};
  task.max_new_tokens = 128;
  return task;
}

}  // namespace qlora
