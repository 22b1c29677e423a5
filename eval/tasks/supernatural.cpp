// Super-NaturalInstructions (Wang et al. 2022), prompted and scored as Tk-Instruct does it: the definition,
// two examples, the input; ROUGE-L with stemming and exact match, each against the best of the right outputs.
#include <algorithm>

#include "core/text/unicode.h"
#include "eval/tasks/answers.h"
#include "eval/tasks/task.h"

namespace qlora {
namespace {

constexpr std::string_view kPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
constexpr size_t kExamples = 2;

std::string sentence(const std::string& text) {
  std::string s = trim(text);
  if (s.empty() || kPunctuation.find(s.back()) == std::string_view::npos) s += '.';
  return s;
}

// What stands before every input of a task's file.
std::string introduction(const DataRow& task) {
  const std::vector<std::string> definition = task.texts("Definition");
  if (definition.empty()) task.wrong("Definition", "a text");
  std::string text = "Definition: " + sentence(definition.front()) + "\n\n";
  const std::vector<DataRow> examples = task.objects("Positive Examples");
  for (size_t i = 0; i < std::min(kExamples, examples.size()); ++i)
    text += fmt::format(" Positive Example {} -\nInput: {}\n Output: {}\n\n", i + 1,
                        sentence(examples[i].text("input")), sentence(examples[i].text("output")));
  return text;
}

std::vector<TaskItem> items(TaskSource& source) {
  std::vector<Path> files;
  for (const auto& entry : std::filesystem::directory_iterator(source.path()))
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  QLORA_CHECK(!files.empty(), data, "{}: no task files (*.json)", source.path().string());
  std::vector<TaskItem> all;
  for (const Path& file : files) {
    const DataRow task = source.object_of(file);
    const std::string before = introduction(task);
    int64_t index = 0;
    for (const DataRow& instance : task.objects("Instances")) {
      TaskItem item = text_answer_item(instance,
                                       before + "Now complete the following example -\nInput: " +
                                           sentence(instance.text("input")) + "\nOutput: ",
                                       instance.texts("output"));
      item.index = index++;
      item.group = file.stem().string();
      all.push_back(std::move(item));
    }
  }
  return all;
}

// Lower case, no punctuation, single spaces.
std::string plain(const std::string& text) {
  std::string out;
  for (char c : lowercase(text))
    if (kPunctuation.find(c) == std::string_view::npos) out += c == '\n' || c == '\t' || c == '\r' ? ' ' : c;
  while (out.find("  ") != std::string::npos) out = replace_all(out, "  ", " ");
  return trim(out);
}

MetricValue value(const Metric& metric, const TaskItem& item, const TaskAnswer& answer) {
  if (metric.name != "exact_match") return rouge_value(metric, item, answer);
  const bool equal = std::any_of(item.targets.begin(), item.targets.end(),
                                 [&](const std::string& t) { return plain(t) == plain(answer.text); });
  return {equal ? 1.0 : 0.0};
}

}  // namespace

Task supernatural_instructions() {
  Task task{.name = "supernatural_instructions", .version = "2", .kind = TaskKind::generate};
  task.protocol = "qlora";
  task.about = "tasks by their definition and two examples, by ROUGE and exact match";
  task.folder = true;
  task.shots = kExamples;
  task.takes_shots = false;
  // First what Tk-Instruct publishes.
  task.metrics = {{"rougeL", Aggregation::mean, true, "stemmed"}, {"exact_match"}};
  for (const Metric& m : rouge_metrics())
    if (m.name != "rougeL" || m.filter != "stemmed") task.metrics.push_back(m);
  task.items = items;
  task.value = value;
  task.filters = {{"plain", whole_answer}, {"stemmed", whole_answer}};
  task.until = {"\n\n"};
  task.max_new_tokens = 128;
  return task;
}

}  // namespace qlora
