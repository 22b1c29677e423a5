// Finding and reading a task's data.
#include <algorithm>

#include "core/base/names.h"
#include "eval/tasks/run_task.h"

namespace qlora {
namespace {

constexpr const char* kExtensions[] = {".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet"};

std::vector<std::string> names_of(const Task& task, const std::string& stem) {
  std::vector<std::string> names;
  for (const char* extension : kExtensions)
    for (const char* packed : {"", ".gz"}) names.push_back(stem + extension + packed);
  if (stem == task.name) names.insert(names.end(), task.files.begin(), task.files.end());
  return names;
}

std::optional<Path> find_in(const Path& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names)
    if (std::filesystem::exists(folder / name)) return folder / name;
  return std::nullopt;
}

Path data_path(const Task& task, const Path& given) {
  QLORA_CHECK(std::filesystem::exists(given), data, "{} is not there", given.string());
  if (task.folder) {
    QLORA_CHECK(std::filesystem::is_directory(given), data, "{}: task {} reads a folder", given.string(),
                task.name);
    return given;
  }
  if (!std::filesystem::is_directory(given)) return given;
  auto found = find_in(given, names_of(task, task.name));
  if (found) return *found;
  std::string known = task.name + ".jsonl";
  for (const std::string& name : task.files) known += ", " + name;
  fail(ErrorKind::data, "{}: no data of task {} (looked for {}); give the file itself", given.string(),
       task.name, known);
}

// The file of few-shot examples: as told, or NAME_train beside the data.
Path examples_path(const Task& task, const Path& data, const TaskOptions& options) {
  if (!options.examples.empty()) return options.examples;
  const Path folder = std::filesystem::is_directory(data) ? data : data.parent_path();
  auto found = find_in(folder, names_of(task, task.name + "_train"));
  QLORA_CHECK(found.has_value(), usage,
              "task {} with examples needs a file of them: {}/{}_train.jsonl, or one that you name",
              task.name, folder.string(), task.name);
  return *found;
}

FewshotDraw draw_of(const Task& task, const std::string& sampler) {
  if (sampler.empty()) return task.draw;
  const std::vector<std::string> known = {"first_n", "lm_eval"};
  QLORA_CHECK(std::find(known.begin(), known.end(), sampler) != known.end(), usage, "{}",
              unknown_name("sampler of examples", sampler, known));
  if (sampler == "first_n") return FewshotDraw::first;
  QLORA_CHECK(
      task.protocol == "lm_eval", usage,
      "sampler lm_eval: lm-evaluation-harness has no task {}; its examples are the first of their file",
      task.name);
  return task.draw;
}

void read_examples(const Task& task, const TaskOptions& options, TaskData& data) {
  TaskSource source(examples_path(task, data.path, options));
  data.draw = draw_of(task, options.fewshot_sampler);
  data.fewshot_seed = static_cast<uint64_t>(options.fewshot_seed);
  data.examples = task.items(source);
  // Where the question itself is left out, one more is drawn than is shown.
  const int64_t needed = data.shots + (data.draw == FewshotDraw::drawn_others ? 1 : 0);
  QLORA_CHECK(static_cast<int64_t>(data.examples.size()) >= needed, data,
              "{}: {} examples asked for{}, {} found", source.path().string(), data.shots,
              needed > data.shots ? ", drawn from at least one more" : "", data.examples.size());
  if (data.draw == FewshotDraw::first) data.examples.resize(static_cast<size_t>(data.shots));
  data.examples_hash = source.content_hash();
}

}  // namespace

TaskData read_task(const Task& task, const Path& path, const TaskOptions& options) {
  TaskData data;
  data.path = data_path(task, path);
  TaskSource source(data.path);
  data.items = task.items(source);
  data.content_hash = source.content_hash();
  QLORA_CHECK(!data.items.empty(), data, "{}: no questions for task {}", data.path.string(), task.name);

  if (!options.groups.empty()) {
    std::vector<std::string> known;
    for (const TaskItem& item : data.items)
      if (std::find(known.begin(), known.end(), item.group) == known.end()) known.push_back(item.group);
    for (const std::string& group : options.groups)
      QLORA_CHECK(std::find(known.begin(), known.end(), group) != known.end(), usage, "{}",
                  unknown_name("part of " + task.name, group, known));
  }

  data.shots = options.shots < 0 ? task.shots : options.shots;
  if (task.takes_shots && data.shots > 0) read_examples(task, options, data);
  QLORA_CHECK(task.takes_shots || data.shots == task.shots, usage, "task {} has {} examples, no other number",
              task.name, task.shots);
  return data;
}

}  // namespace qlora
