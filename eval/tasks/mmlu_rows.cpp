#include "eval/tasks/mmlu_rows.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/check.h"
#include "core/base/json.h"
#include "datasets/parquet/parquet.h"

namespace qlora {
namespace {

const Json& field(const Json& row, const char* name, const std::string& place) {
  const auto found = row.find(name);
  QLORA_CHECK(found != row.end(), data, "{}: no field `{}`", place, name);
  return *found;
}

std::string text_of(const Json& row, const char* name, const std::string& place) {
  const Json& value = field(row, name, place);
  QLORA_CHECK(value.is_string(), data, "{}: `{}` must be text, found {}", place, name, value.type_name());
  return value.get<std::string>();
}

int letter_index(const std::string& letter, const std::string& place) {
  QLORA_CHECK(letter.size() == 1 && letter[0] >= 'A' && letter[0] <= 'D', data,
              "{}: the answer must be A, B, C or D, found `{}`", place, letter);
  return letter[0] - 'A';
}

int answer_of(const Json& row, const std::string& place) {
  const Json& value = field(row, "answer", place);
  if (value.is_string()) return letter_index(value.get<std::string>(), place);
  QLORA_CHECK(value.is_number_integer(), data, "{}: `answer` must be 0 to 3 or a letter, found {}", place,
              value.type_name());
  const auto answer = value.get<int64_t>();
  QLORA_CHECK(answer >= 0 && answer <= 3, data, "{}: `answer` must be 0 to 3, found {}", place, answer);
  return static_cast<int>(answer);
}

// How many examples with their answers stand before the question.
int64_t shots_in(std::string_view prompt) {
  constexpr std::string_view kAnswer = "\nAnswer: ";
  int64_t shots = 0;
  for (size_t at = prompt.find(kAnswer); at != std::string_view::npos; at = prompt.find(kAnswer, at + 1)) {
    const std::string_view after = prompt.substr(at + kAnswer.size(), 3);
    if (after.size() == 3 && after[0] >= 'A' && after[0] <= 'D' && after.substr(1) == "\n\n") ++shots;
  }
  return shots;
}

void add(MmluRows& rows, const Json& outer, const std::string& place) {
  QLORA_CHECK(outer.is_object(), data, "{}: expected an object, found {}", place, outer.type_name());
  const Json& row = outer.contains("doc") && outer.at("doc").is_object() ? outer.at("doc") : outer;
  MmluQuestion q;
  std::string subject = text_of(row, "subject", place);
  QLORA_CHECK(!subject.empty(), data, "{}: `subject` is empty", place);
  std::replace(subject.begin(), subject.end(), ' ', '_');
  if (row.contains("input")) {
    q.rendered = text_of(row, "input", place);
    QLORA_CHECK(!q.rendered.empty(), data, "{}: `input` is empty", place);
    q.rendered_shots = shots_in(q.rendered);
    q.answer = letter_index(text_of(row, "output", place), place);
  } else {
    q.question = text_of(row, "question", place);
    const Json& choices = field(row, "choices", place);
    QLORA_CHECK(choices.is_array() && choices.size() == 4, data,
                "{}: `choices` must be a list of 4 texts, found {}", place,
                choices.is_array() ? fmt::format("{} of them", choices.size()) : choices.type_name());
    for (size_t i = 0; i < 4; ++i) {
      QLORA_CHECK(choices[i].is_string(), data, "{}: choice {} must be text, found {}", place, i + 1,
                  choices[i].type_name());
      q.choices[i] = choices[i].get<std::string>();
    }
    q.answer = answer_of(row, place);
  }
  std::vector<MmluQuestion>& of_subject = rows[subject];
  q.index = static_cast<int64_t>(of_subject.size());
  QLORA_CHECK(of_subject.empty() || of_subject.front().rendered.empty() == q.rendered.empty(), data,
              "{}: rendered prompts and plain questions in one file", place);
  of_subject.push_back(std::move(q));
}

void add_json(MmluRows& rows, const std::string& text, const Path& file) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && text[first] == '[') {
    const Json list = parse_json(text, file.string());
    for (size_t i = 0; i < list.size(); ++i)
      add(rows, list[i], fmt::format("{}: row {}", file.string(), i + 1));
  } else {
    int line = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view row = std::string_view(text).substr(at, end - at);
      const std::string place = fmt::format("{}:{}", file.string(), ++line);
      if (row.find_first_not_of(" \t\r") != std::string_view::npos) add(rows, parse_json(row, place), place);
      at = end + 1;
    }
  }
}

// "val" and "test" as words of a file's name.
std::string split_in(const std::string& name) {
  constexpr std::string_view kParting = "_-. ";
  std::set<std::string> found;
  for (size_t at = 0; at < name.size();) {
    const size_t end = std::min(name.find_first_of(kParting, at), name.size());
    const std::string word = name.substr(at, end - at);
    if (word == "val" || word == "validation") found.insert("val");
    if (word == "test") found.insert("test");
    at = end + 1;
  }
  return found.size() == 1 ? *found.begin() : "";
}

int64_t most_shots(const MmluRows& rows) {
  int64_t most = 0;  // of a truncated prompt there are fewer
  for (const auto& [name, questions] : rows)
    for (const MmluQuestion& q : questions) most = std::max(most, q.rendered_shots);
  return most;
}

}  // namespace

bool is_rendered(const MmluData& data) {
  return std::any_of(data.subjects.begin(), data.subjects.end(), [](const MmluSubject& s) {
    return !s.questions.empty() && !s.questions.front().rendered.empty();
  });
}

bool is_rendered(const MmluRows& rows) {
  return std::any_of(rows.begin(), rows.end(),
                     [](const auto& of_subject) { return !of_subject.second.front().rendered.empty(); });
}

Path rendered_file(const Path& folder, const MmluOptions& options) {
  if ((options.shots != 0 && options.shots != 5) || !std::filesystem::is_directory(folder)) return {};
  const std::string begin =
      fmt::format("{}_shot_mmlu_{}", options.shots == 0 ? "zero" : "five", options.split);
  std::vector<Path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || !name.starts_with(begin + ".")) continue;
    if (name == begin + ".json") return entry.path();
    if (name.ends_with(".json") || name.ends_with(".json.gz")) found.push_back(entry.path());
  }
  QLORA_CHECK(found.size() < 2, data, "{}: {} and {} may be meant; give the file as --data", folder.string(),
              found[0].filename().string(), found[1].filename().string());
  return found.empty() ? Path() : found[0];
}

std::string rendered_split(const Path& data, const MmluOptions& options) {
  if (std::filesystem::is_directory(data)) {
    MmluOptions other = options;
    other.split = options.split == "test" ? "val" : "test";
    const bool own = std::filesystem::exists(data / options.split) || !rendered_file(data, options).empty();
    return !own && !rendered_file(data, other).empty() ? other.split : options.split;
  }
  const std::string split = split_in(data.filename().string());
  if (split.empty() || !std::filesystem::is_regular_file(data)) return options.split;
  Sha256 ignored;
  MmluRows rows;
  read_mmlu_rows(data, ignored, rows);
  return is_rendered(rows) ? split : options.split;
}

void check_rendered(const Path& file, const MmluRows& rows, const MmluOptions& options) {
  if (!is_rendered(rows)) return;
  QLORA_CHECK(
      options.protocol == "qlora", usage,
      "{}: these are prompts as QLoRA rendered them, which only protocol qlora asks, but the protocol "
      "is {}; give --protocol qlora, or as --data the tree of CSV files",
      file.string(), options.protocol);
  const std::string split = split_in(file.filename().string());
  QLORA_CHECK(split.empty() || split == options.split, usage,
              "{}: by its name it holds questions of split {}, but the split is {}; give --split {}",
              file.string(), split, options.split, split);
  const int64_t most = most_shots(rows);
  QLORA_CHECK(most == options.shots, usage,
              "{}: these are rendered prompts with {} shots, but shots is {}; give --shots {}", file.string(),
              most, options.shots, most);
}

void read_mmlu_rows(const Path& file, Sha256& content, MmluRows& rows) {
  const Path unpacked = file.extension() == ".gz" ? file.stem() : file.filename();
  QLORA_CHECK(unpacked.extension() != ".csv", usage,
              "{}: a CSV is one file of an MMLU tree; give the tree's root, which holds dev/ and test/ or "
              "val/, and name its subject (--subjects)",
              file.string());
  const std::string text = read_file(file);
  content.update(file.filename().string()).update(std::string_view("\0", 1)).update(text);
  size_t before = 0, after = 0;
  for (const auto& [name, of_subject] : rows) before += of_subject.size();
  if (file.extension() == ".parquet") {
    const std::vector<Json> table = parse_parquet(text, file.string());
    for (size_t i = 0; i < table.size(); ++i)
      add(rows, table[i], fmt::format("{}: row {}", file.string(), i + 1));
  } else {
    add_json(rows, text, file);
  }
  for (const auto& [name, of_subject] : rows) after += of_subject.size();
  QLORA_CHECK(after > before, data, "{}: no questions", file.string());
}

}  // namespace qlora
