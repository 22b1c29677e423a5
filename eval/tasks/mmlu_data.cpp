#include <algorithm>
#include <initializer_list>
#include <set>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/names.h"
#include "datasets/csv.h"
#include "eval/tasks/mmlu_data.h"
#include "eval/tasks/mmlu_protocol.h"
#include "eval/tasks/mmlu_rows.h"

namespace qlora {
namespace {

std::vector<MmluQuestion> read_questions(const Path& path, Sha256& content) {
  const std::string text = read_file(path);
  content.update(path.filename().string()).update(std::string_view("\0", 1)).update(text);
  CsvReader csv(text, path.string());
  std::vector<MmluQuestion> questions;
  while (auto fields = csv.next()) {
    QLORA_CHECK(fields->size() == 6, data,
                "{}:{}: expected 6 columns (question, A, B, C, D, answer), found {}", path.string(),
                csv.line(), fields->size());
    const std::string& letter = fields->back();
    QLORA_CHECK(letter.size() == 1 && letter[0] >= 'A' && letter[0] <= 'D', data,
                "{}:{}: the answer must be A, B, C or D, found `{}`", path.string(), csv.line(), letter);
    MmluQuestion q;
    q.index = static_cast<int64_t>(questions.size());
    q.question = (*fields)[0];
    for (size_t i = 0; i < 4; ++i) q.choices[i] = (*fields)[i + 1];
    q.answer = letter[0] - 'A';
    questions.push_back(std::move(q));
  }
  QLORA_CHECK(!questions.empty(), data, "{}: no questions", path.string());
  return questions;
}

std::vector<std::string> subjects_of(const Path& folder, const std::string& split) {
  QLORA_CHECK(std::filesystem::is_directory(folder), data,
              "{} is not there: an MMLU tree holds dev/ and {}/ with one <subject>_<split>.csv per subject",
              folder.string(), split);
  const std::string ending = "_" + split + ".csv";
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    if (name.size() > ending.size() && name.ends_with(ending))
      names.push_back(name.substr(0, name.size() - ending.size()));
  }
  std::sort(names.begin(), names.end());
  QLORA_CHECK(!names.empty(), data, "{}: no file named <subject>{}", folder.string(), ending);
  return names;
}

// The named subjects, or all; unknown ones are an error with the nearest.
std::vector<std::string> chosen(std::vector<std::string> names, const std::vector<std::string>& wanted) {
  if (wanted.empty()) return names;
  for (const std::string& name : wanted)
    QLORA_CHECK(std::binary_search(names.begin(), names.end(), name), usage, "{}",
                unknown_name("MMLU subject", name, names));
  std::set<std::string> unique(wanted.begin(), wanted.end());
  return {unique.begin(), unique.end()};
}

MmluData read_csv_tree(const Path& tree, const MmluOptions& options) {
  MmluData data;
  Sha256 content;
  for (const std::string& name : chosen(subjects_of(tree / options.split, options.split), options.subjects)) {
    MmluSubject s;
    s.name = name;
    s.questions = read_questions(tree / options.split / (name + "_" + options.split + ".csv"), content);
    if (options.shots > 0) {
      const Path dev = tree / "dev" / (name + "_dev.csv");
      s.dev = read_questions(dev, content);
      QLORA_CHECK(static_cast<int64_t>(s.dev.size()) >= options.shots, data,
                  "{}: {} shots asked for, {} rows found", dev.string(), options.shots, s.dev.size());
    }
    data.subjects.push_back(std::move(s));
  }
  data.content_hash = hex(content.finish());
  return data;
}

bool holds_rows(const std::string& file, std::string_view split) {
  if (!file.starts_with(split)) return false;
  const std::string rest = file.substr(split.size());
  for (const char* ending : {".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet"})
    if (rest == ending) return true;
  return rest.starts_with("-") && rest.ends_with(".parquet");  // "test-00000-of-00001.parquet"
}

// The files of a split in a folder, else in its folder `all`, else in each of its folders.
std::vector<Path> row_files(const Path& folder, std::initializer_list<const char*> splits) {
  std::vector<Path> here, below;
  if (!std::filesystem::is_directory(folder)) return here;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    for (const char* split : splits)
      if (entry.is_regular_file() && holds_rows(name, split)) here.push_back(entry.path());
    if (entry.is_directory() && name != "auxiliary_train") below.push_back(entry.path());
  }
  if (here.empty() && std::filesystem::is_directory(folder / "all")) return row_files(folder / "all", splits);
  if (here.empty())
    for (const Path& one : below)
      for (const auto& entry : std::filesystem::directory_iterator(one))
        for (const char* split : splits)
          if (entry.is_regular_file() && holds_rows(entry.path().filename().string(), split))
            here.push_back(entry.path());
  std::sort(here.begin(), here.end());
  return here;
}

MmluRows read_all_rows(const std::vector<Path>& files, Sha256& content) {
  MmluRows rows;
  for (const Path& file : files) read_mmlu_rows(file, content, rows);
  return rows;
}

MmluData read_rows(const std::vector<Path>& files, const std::vector<Path>& dev, const MmluOptions& options) {
  MmluData data;
  Sha256 content;
  MmluRows rows = read_all_rows(files, content), examples;
  check_rendered(files.front(), rows, options);
  if (options.shots > 0) examples = read_all_rows(dev, content);
  std::vector<std::string> names;
  for (const auto& [name, questions] : rows) names.push_back(name);
  for (const std::string& name : chosen(std::move(names), options.subjects)) {
    MmluSubject s;
    s.name = name;
    s.questions = std::move(rows.at(name));
    if (auto found = examples.find(name); found != examples.end()) s.dev = std::move(found->second);
    const bool rendered = !s.questions.front().rendered.empty();
    QLORA_CHECK(rendered || static_cast<int64_t>(s.dev.size()) >= options.shots, data,
                "{}: {} shots asked for, {} rows of {} found in the dev files beside it ({})",
                files.front().string(), options.shots, s.dev.size(), name,
                dev.empty() ? "dev.jsonl or dev-*.parquet is not there" : dev.front().string());
    data.subjects.push_back(std::move(s));
  }
  data.content_hash = hex(content.finish());
  return data;
}

// A folder without the split's questions may be one of rendered prompts, of which others were asked for.
void check_no_other_rendered(const Path& folder, const MmluOptions& options) {
  if (std::filesystem::is_directory(folder / options.split)) return;
  std::vector<std::string> others;
  for (int64_t shots : {0, 5})
    for (const char* split : {"test", "val"}) {
      MmluOptions other = options;
      other.shots = shots;
      other.split = split;
      if (const Path file = rendered_file(folder, other); !file.empty())
        others.push_back(fmt::format("{} (--shots {} --split {})", file.filename().string(), shots, split));
    }
  QLORA_CHECK(others.empty(), usage, "{}: no prompts of split {} with {} shots are here, but {}",
              folder.string(), options.split, options.shots, fmt::join(others, ", "));
}

}  // namespace

MmluData read_mmlu(const Path& path, const MmluOptions& options) {
  const std::vector<std::string> splits = {"test", "val"};
  mmlu_protocol_named(options.protocol);
  QLORA_CHECK(options.split == "test" || options.split == "val", usage, "{}",
              unknown_name("MMLU split", options.split, splits));
  QLORA_CHECK(options.shots >= 0 && options.shots <= 5, usage, "MMLU shots must be 0 to 5, found {}",
              options.shots);
  MmluData data;
  if (std::filesystem::is_regular_file(path)) {
    data = read_rows({path}, row_files(path.parent_path(), {"dev"}), options);
  } else if (const Path rendered = rendered_file(path, options); !rendered.empty()) {
    data = read_rows({rendered}, {}, options);
  } else if (auto files =
                 options.split == "val" ? row_files(path, {"val", "validation"}) : row_files(path, {"test"});
             !files.empty()) {
    data = read_rows(files, row_files(path, {"dev"}), options);
  } else {
    check_no_other_rendered(path, options);
    data = read_csv_tree(path, options);
  }
  data.split = options.split;
  return data;
}

}  // namespace qlora
