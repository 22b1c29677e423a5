// The AI2 Reasoning Challenge (Clark et al. 2018): school questions in science, an easy and a hard part.
#include <algorithm>

#include "eval/tasks/task.h"

namespace qlora {
namespace {

// {"question": {"stem": .., "choices": [{"text", "label"}]}, "answerKey"}: AI2's own release.
// {"question": .., "choices": {"text": [..], "label": [..]}, "answerKey"}: the hub's.
// {"query": "Question: ..", "choices": [..], "gold": 0}: prepared by LLM Foundry.
TaskItem item_of(const DataRow& row) {
  std::string question;
  std::vector<std::string> texts, labels;
  if (row.has("query")) {
    constexpr std::string_view kLead = "Question: ";
    question = row.text("query");
    if (question.starts_with(kLead)) question = question.substr(kLead.size());
    return choice_item(row, "Question: " + question + "\nAnswer:", row.texts("choices"), row.integer("gold"));
  }
  if (row.has("choices")) {
    question = row.text("question");
    texts = row.object("choices").texts("text");
    labels = row.object("choices").texts("label");
  } else {
    const DataRow inner = row.object("question");
    question = inner.text("stem");
    for (const DataRow& choice : inner.objects("choices")) {
      texts.push_back(choice.text("text"));
      labels.push_back(choice.text("label"));
    }
  }
  auto right = std::find(labels.begin(), labels.end(), row.text("answerKey"));
  if (right == labels.end()) row.wrong("answerKey", "the label of a choice");
  return choice_item(row, "Question: " + question + "\nAnswer:", texts, right - labels.begin());
}

// Rows of one answer each, {"question", "answer", "label": 1 right or 0 wrong}: neighbours of the same
// question are one item. As lists that put the right answer first would reward a habit, answers of odd
// questions come in reverse order.
std::vector<TaskItem> items_of_answers(const std::vector<DataRow>& rows) {
  std::vector<TaskItem> all;
  for (size_t lo = 0; lo < rows.size();) {
    const std::string question = rows[lo].text("question");
    std::vector<std::string> answers;
    int64_t right = -1;
    size_t hi = lo;
    for (; hi < rows.size() && rows[hi].text("question") == question; ++hi) {
      const bool is_right = rows[hi].integer("label") == 1;
      if (is_right && right >= 0) break;  // the same question once more
      if (is_right) right = static_cast<int64_t>(answers.size());
      answers.push_back(rows[hi].text("answer"));
    }
    if (right < 0) rows[lo].wrong("label", "1 for one answer of every question");
    if (all.size() % 2 == 1) {
      std::reverse(answers.begin(), answers.end());
      right = static_cast<int64_t>(answers.size()) - 1 - right;
    }
    all.push_back(choice_item(rows[lo], "Question: " + question + "\nAnswer:", answers, right));
    lo = hi;
  }
  return all;
}

std::vector<TaskItem> items(TaskSource& source) {
  const std::vector<DataRow> rows = source.rows();
  if (rows.front().has("answer")) return numbered(items_of_answers(rows));
  std::vector<TaskItem> all;
  for (const DataRow& row : rows) all.push_back(item_of(row));
  return numbered(std::move(all));
}

Task arc(const std::string& name, const std::string& release_name) {
  Task task = choice_task(name, "1.0", "science questions from school, the " + name.substr(4) + " part",
                          {release_name + "-Test.jsonl", release_name + "/test.jsonl"}, items);
  task.draw = FewshotDraw::drawn;
  return task;
}

}  // namespace

Task arc_easy() {
  return arc("arc_easy", "ARC-Easy");
}
Task arc_challenge() {
  return arc("arc_challenge", "ARC-Challenge");
}

}  // namespace qlora
