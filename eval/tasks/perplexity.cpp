// Perplexity of any text, divided by tokens, words and bytes. Each row {"text": ..} is a document with
// windows of its own; a .txt file is one document.
#include <nlohmann/json.hpp>

#include "eval/tasks/task.h"

namespace qlora {
namespace {

std::vector<TaskItem> items(TaskSource& source) {
  const Path& path = source.path();
  const Path plain = path.extension() == ".gz" ? path.stem() : path;
  std::vector<TaskItem> all;
  if (plain.extension() == ".txt") {
    const std::string text = source.text_of(path);
    all.push_back(text_item(canonical(Json{{"file", path.filename().string()}}), text, text));
  } else {
    for (const DataRow& row : source.rows()) {
      const std::string text = row.text("text");
      all.push_back(text_item(row.json(), text, text));
    }
  }
  return numbered(std::move(all));
}

}  // namespace

Task perplexity() {
  Task task{.name = "perplexity", .version = "1", .kind = TaskKind::rolling};
  task.protocol = "qlora";
  task.about = "perplexity of a text by token, word and byte";
  task.takes_shots = false;
  task.metrics = {{"token_perplexity", Aggregation::weighted_perplexity, false},
                  {"word_perplexity", Aggregation::weighted_perplexity, false},
                  {"byte_perplexity", Aggregation::weighted_perplexity, false},
                  {"bits_per_byte", Aggregation::weighted_bits, false}};
  task.items = items;
  task.value = rolling_value;
  return task;
}

}  // namespace qlora
