// BIG-Bench-Hard (Suzgun et al. 2022), 27 tasks in the layout of its release: data in bbh/ or data/
// (TASK.json), worked examples in cot-prompts/ or cot_prompts/ (TASK.txt). Four ways to ask: with the three
// worked examples, with the same three by their answers alone, and both without examples.
#include <algorithm>

#include "core/text/unicode.h"
#include "eval/tasks/answers.h"
#include "eval/tasks/bbh_answers.h"

namespace qlora {
namespace {

constexpr std::string_view kStepByStep = "A: Let's think step by step.";

Path one_of(const Path& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names)
    if (std::filesystem::is_directory(folder / name)) return folder / name;
  return folder;
}

// The release's folder: what is given, or `bbh` in a folder of several tasks' data.
Path release_of(const Path& given) {
  const Path inner = given / "bbh";
  const bool holds =
      std::filesystem::is_directory(inner / "bbh") || std::filesystem::is_directory(inner / "data");
  return holds ? inner : given;
}

// The release's file of a task: description, then examples, each after an empty line.
struct Prompt {
  std::string description;            // without the empty line after it
  std::vector<std::string> examples;  // "Q: ..\nA: Let's think step by step.\n.. So the answer is X."
};

Prompt read_prompt(TaskSource& source, const std::string& task) {
  const Path file = one_of(release_of(source.path()), {"cot-prompts", "cot_prompts"}) / (task + ".txt");
  std::string text = source.text_of(file);
  if (const size_t notice = text.find("-----\n"); notice != std::string::npos) text = text.substr(notice + 6);
  Prompt prompt;
  // One example of the release has a space for the line feed.
  text = trim(replace_all(text, std::string(kStepByStep) + " ", std::string(kStepByStep) + "\n"));
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find("\n\nQ: ", at), text.size());
    (at == 0 ? prompt.description : prompt.examples.emplace_back()) = text.substr(at, end - at);
    at = end + 2;
  }
  QLORA_CHECK(prompt.examples.size() == 3, data, "{}: expected a description and 3 examples, found {}",
              file.string(), prompt.examples.size());
  return prompt;
}

// An example with its answer alone.
std::string direct(const std::string& example) {
  constexpr std::string_view kStatement = "So the answer is ";
  const size_t chain = example.find(kStepByStep), answer = example.rfind(kStatement);
  QLORA_CHECK(chain != std::string::npos && answer != std::string::npos, data,
              "BIG-Bench-Hard: an example without `{}` or `{}`", kStepByStep, kStatement);
  return example.substr(0, chain) + "A: " + without_final_period(example.substr(answer + kStatement.size()));
}

template <bool chain, bool examples>
std::vector<TaskItem> items(TaskSource& source) {
  const Path folder = one_of(release_of(source.path()), {"bbh", "data"});
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  QLORA_CHECK(!names.empty(), data,
              "{}: no TASK.json of BIG-Bench-Hard (looked for in bbh/bbh/, bbh/data/, bbh/, data/ and the "
              "folder itself)",
              source.path().string());
  std::vector<TaskItem> all;
  for (const std::string& name : names) {
    const Prompt prompt = read_prompt(source, name);
    std::string before = prompt.description + "\n\n";
    if (examples)
      for (const std::string& e : prompt.examples) before += (chain ? e : direct(e)) + "\n\n";
    int64_t index = 0;
    for (const DataRow& row : source.rows_of(folder / (name + ".json"), "examples")) {
      std::string context = before + "Q: " + row.text("input") + "\n";
      context += chain ? kStepByStep : "A:";
      if (chain && examples) context += "\n";
      TaskItem item = text_answer_item(row, std::move(context), {row.text("target")});
      item.group = name;
      item.index = index++;
      all.push_back(std::move(item));
    }
  }
  return all;
}

MetricValue equal(const Metric&, const TaskItem& item, const TaskAnswer& answer) {
  return {answer.text == item.targets[0] ? 1.0 : 0.0};
}

MetricValue roughly_equal(const Metric&, const TaskItem& item, const TaskAnswer& answer) {
  auto plain = [](const std::string& text) {
    return lowercase(without_characters(without_final_period(text), ",\n\\\""));
  };
  return {plain(answer.text) == plain(item.targets[0]) ? 1.0 : 0.0};
}

Task bbh(const std::string& way, const std::string& version, const std::string& about) {
  Task task{.name = "bbh_" + way, .version = version, .kind = TaskKind::generate};
  task.about = "27 hard tasks, " + about;
  task.folder = true;
  task.takes_shots = false;
  task.group_version = "3.0";
  task.value = equal;
  return task;
}

}  // namespace

Task bbh_cot_fewshot() {
  Task task = bbh("cot_fewshot", "4.0", "after three worked examples");
  task.shots = 3;
  task.metrics = {{"exact_match", Aggregation::mean, true, "get-answer"}};
  task.items = items<true, true>;
  task.filters = {{"get-answer", bbh_stated_answer}};
  task.until = {"</s>", "Q", "\n\n"};
  task.max_new_tokens = 1024;
  return task;
}

Task bbh_fewshot() {
  Task task = bbh("fewshot", "2.0", "after three examples with their answers alone");
  task.shots = 3;
  task.metrics = {{"exact_match"}};
  task.items = items<false, true>;
  task.until = {"</s>", "Q", "\n\n"};
  return task;
}

Task bbh_cot_zeroshot() {
  Task task = bbh("cot_zeroshot", "3.0", "step by step without examples");
  task.metrics = {{"exact_match", Aggregation::mean, true, "flexible-extract"},
                  {"exact_match", Aggregation::mean, true, "strict-match"}};
  task.items = items<true, false>;
  task.group_filter = "flexible-extract";
  task.value = roughly_equal;
  task.filters = {{"flexible-extract", bbh_last_answer}, {"strict-match", bbh_stated_answer_any}};
  task.until = {"</s>", "Q:", "<|im_end|>"};
  return task;
}

Task bbh_zeroshot() {
  Task task = bbh("zeroshot", "3.0", "answers alone without examples");
  task.metrics = {{"exact_match", Aggregation::mean, true, "strict-match"},
                  {"exact_match", Aggregation::mean, true, "flexible-extract"}};
  task.items = items<false, false>;
  task.group_filter = "flexible-extract";
  task.value = roughly_equal;
  task.filters = {{"strict-match", whole_answer}, {"flexible-extract", bbh_first_answer}};
  task.until = {"</s>", "Q:", "<|im_end|>"};
  return task;
}

}  // namespace qlora
