#include <algorithm>
#include <set>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/names.h"
#include "datasets/csv.h"
#include "eval/tasks/mmlu.h"

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

}  // namespace

MmluData read_mmlu(const Path& tree, const MmluOptions& options) {
  const std::vector<std::string> protocols = {"hendrycks"}, splits = {"test", "val"};
  QLORA_CHECK(options.protocol == "hendrycks", usage, "{}",
              unknown_name("MMLU protocol", options.protocol, protocols));
  QLORA_CHECK(options.split == "test" || options.split == "val", usage, "{}",
              unknown_name("MMLU split", options.split, splits));
  QLORA_CHECK(options.shots >= 0 && options.shots <= 5, usage, "MMLU shots must be 0 to 5, found {}",
              options.shots);

  std::vector<std::string> names = subjects_of(tree / options.split, options.split);
  if (!options.subjects.empty()) {
    for (const std::string& wanted : options.subjects)
      QLORA_CHECK(std::binary_search(names.begin(), names.end(), wanted), usage, "{}",
                  unknown_name("MMLU subject", wanted, names));
    std::set<std::string> chosen(options.subjects.begin(), options.subjects.end());
    names = std::vector<std::string>(chosen.begin(), chosen.end());
  }
  MmluData data;
  data.split = options.split;
  Sha256 content;
  for (const std::string& name : names) {
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

}  // namespace qlora
