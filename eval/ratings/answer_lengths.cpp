#include "eval/ratings/answer_lengths.h"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>

#include "core/base/check.h"
#include "core/base/json.h"
#include "eval/judge/alpaca_eval_outputs.h"
#include "eval/judge/judgments.h"
#include "eval/judge/rows.h"

namespace qlora {

namespace {

// Without the ending of a compressed file.
std::string plain_name(const Path& path) {
  std::string name = path.filename().string();
  if (name.ends_with(".gz")) name.erase(name.size() - 3);
  return name;
}

// Rows of AlpacaEval name their systems themselves.
bool names_systems(const Path& path, std::string_view content) {
  if (plain_name(path).ends_with(".json")) return true;
  const Json first = Json::parse(content.substr(0, content.find('\n')), nullptr, false);
  return first.is_object() && first.contains("instruction") && !first.contains("question_id") &&
         !first.contains("message_id");
}

std::string system_of(const Path& path) {
  std::string name = plain_name(path);
  for (std::string_view ending : {".jsonl", ".json"})
    if (name.ends_with(ending)) name.erase(name.size() - ending.size());
  return system_alias(name);
}

int64_t code_points(const std::string& text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::string item_of(const Row& row) {
  for (const char* key : {"question_id", "message_id"})
    if (row.has(key)) return row.id(key);
  fail(ErrorKind::data, "{}: the row has no `question_id` or `message_id`, nor AlpacaEval's `instruction`",
       row.where());
}

int64_t length_of(const Json& row, const std::string& where) {
  // In the release's own generations `text` is the question; so it comes last.
  for (const char* key : {"generation_truncated", "generation", "text"})
    if (auto answer = row.find(key); answer != row.end() && answer->is_string())
      return code_points(answer->get_ref<const std::string&>());
  auto choices = row.find("choices");
  if (choices != row.end() && choices->is_array() && !choices->empty() && choices->front().is_object()) {
    int64_t sum = 0;
    for (const Json& turn : choices->front().value("turns", Json::array()))
      if (turn.is_string()) sum += code_points(turn.get_ref<const std::string&>());
    return sum;
  }
  fail(ErrorKind::data,
       "{}: no answer; expected `generation_truncated`, `generation`, `text` or `choices[0].turns`", where);
}

// By system and item.
using Lengths = std::map<std::pair<std::string, std::string>, int64_t>;

void read_answers(const Path& path, std::string_view content, Lengths& lengths) {
  const std::string system = system_of(path);
  for_each_row(content, path.string(), [&](const Row& row) {
    auto add = [&](const std::string& name, const std::string& item, int64_t length) {
      auto [known, fresh] = lengths.try_emplace({name, item}, length);
      QLORA_CHECK(fresh || known->second == length, data,
                  "{}: a second answer of {} to {}, {} characters long where the other has {}", row.where(),
                  name, item, length, known->second);
    };
    const std::vector<AlpacaEvalOutput> outputs = alpaca_eval_outputs(row);
    for (const AlpacaEvalOutput& output : outputs) add(output.system, output.item, code_points(output.text));
    if (outputs.empty()) add(system, item_of(row), length_of(row.json(), row.where()));
  });
}

[[noreturn]] void no_answer(const std::string& system, const std::string& prompt,
                            const PlaceOfJudgment& where_judged, const Lengths& lengths,
                            std::span<const Path> files) {
  std::set<std::string> known;
  for (const auto& [key, length] : lengths) known.insert(key.first);
  fail(ErrorKind::data, "{}no answer of {} to prompt {} in the {} files of answers; they answer for {}",
       where_judged ? where_judged(system, prompt) + ": " : "", system, prompt, files.size(),
       known.empty() ? "no system of these matches" : fmt::format("{}", fmt::join(known, ", ")));
}

bool fits(const std::string& name, const std::string& pattern) {
  return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

}  // namespace

std::vector<Path> find_answer_files(const std::string& text) {
  Path path(text);
  std::vector<Path> found;
  if (std::filesystem::is_regular_file(path)) return {path};
  bool folder = std::filesystem::is_directory(path);
  const std::vector<std::string> patterns = folder ? std::vector<std::string>{"*.jsonl*", "*_outputs.json*"}
                                                   : std::vector<std::string>{path.filename().string()};
  if (!folder) path = path.has_parent_path() ? path.parent_path() : Path(".");
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(path, missing))
    if (entry.is_regular_file() && std::any_of(patterns.begin(), patterns.end(), [&](const std::string& p) {
          return fits(entry.path().filename().string(), p);
        }))
      found.push_back(entry.path());
  QLORA_CHECK(!found.empty(), data, "{}: no file of answers here", text);
  std::sort(found.begin(), found.end());
  return found;
}

void add_answer_lengths(Matches& all, std::span<const Path> answer_files,
                        const PlaceOfJudgment& where_judged) {
  Lengths lengths;
  auto plays = [&](const std::string& system) {
    return std::find(all.systems.begin(), all.systems.end(), system) != all.systems.end();
  };
  for (const Path& path : answer_files) {
    const std::string content = read_file(path);
    if (names_systems(path, content) || plays(system_of(path))) read_answers(path, content, lengths);
  }
  for (Match& m : all.matches) {
    QLORA_CHECK(m.prompt >= 0, usage, "length control needs to know the prompt of every match");
    const std::string& prompt = all.prompts[static_cast<size_t>(m.prompt)];
    auto length = [&](int32_t system) {
      const std::string& name = all.systems[static_cast<size_t>(system)];
      auto found = lengths.find({name, prompt});
      if (found == lengths.end()) no_answer(name, prompt, where_judged, lengths, answer_files);
      return static_cast<double>(found->second);
    };
    double a = length(m.first), b = length(m.second);
    m.length = a + b > 0 ? static_cast<float>((a - b) / (a + b)) : 0;
  }
}

}  // namespace qlora
