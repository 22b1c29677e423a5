// WinoGrande (Sakaguchi et al. 2020): whom a blank means. Scored the other way round: the end of the sentence
// is the same, and the two fillings are its contexts.
#include "eval/tasks/task.h"

namespace qlora {
namespace {

// {"sentence": "a _ b", "option1", "option2", "answer": "1" or "2"}: the release's.
// {"context_options": [.., ..], "continuation": .., "gold": 0 or 1}: prepared by LLM Foundry.
TaskItem item_of(const DataRow& row) {
  std::vector<std::string> contexts;
  std::string rest;
  int64_t gold = 0;
  if (row.has("context_options")) {
    contexts = row.texts("context_options");
    rest = row.text("continuation");
    gold = row.integer("gold");
  } else {
    const std::string sentence = row.text("sentence");
    const size_t blank = sentence.find('_');
    if (blank == std::string::npos) row.wrong("sentence", "a sentence with a blank `_`");
    for (const char* option : {"option1", "option2"})
      contexts.push_back(sentence.substr(0, blank) + row.text(option));
    rest = sentence.substr(blank + 1);
    gold = row.integer("answer") - 1;
  }
  TaskItem item = choice_item(row, "", contexts, gold);  // lengths are those of the contexts
  item.contexts = contexts;
  item.continuations.assign(contexts.size(), " " + trim(rest));
  return item;
}

}  // namespace

Task winogrande() {
  Task task = choice_task("winogrande", "1.0", "whom a blank in a sentence means",
                          {"dev.jsonl", "validation.jsonl"}, items_of_rows<item_of>);
  task.metrics[1].in_harness = false;
  return task;
}

}  // namespace qlora
