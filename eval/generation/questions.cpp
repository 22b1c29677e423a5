#include "eval/generation/questions.h"

#include <map>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/json_lines.h"
#include "core/text/chat_render.h"

namespace qlora {
namespace {

std::string text_of(const Json& row, const char* field, const std::string& where) {
  QLORA_CHECK(row.contains(field), data, "{}: the question has no `{}`", where, field);
  QLORA_CHECK(row.at(field).is_string(), data, "{}: `{}` must be text, found {}", where, field,
              row.at(field).type_name());
  return row.at(field).get<std::string>();
}

std::string id_of(const Json& row, const std::string& where) {
  const char* field = row.contains("question_id") ? "question_id" : "message_id";
  QLORA_CHECK(row.contains(field), data, "{}: the question has neither `question_id` nor `message_id`",
              where);
  const Json& id = row.at(field);
  QLORA_CHECK(id.is_string() || id.is_number_integer(), data,
              "{}: `{}` must be text or a whole number, found {}", where, field, id.type_name());
  return id.is_string() ? id.get<std::string>() : id.dump();
}

void read_turns(const Json& row, const std::string& where, Question& question) {
  const Json& turns = row.at("turns");
  QLORA_CHECK(turns.is_array() && !turns.empty(), data, "{}: `turns` must be a list of texts", where);
  for (const Json& turn : turns) {
    QLORA_CHECK(turn.is_string(), data, "{}: `turns` must be a list of texts", where);
    question.further.push_back(turn.get<std::string>());
  }
  question.before = {{"user", question.further.front()}};
  question.further.erase(question.further.begin());
}

// The release's Open Assistant rows have `text` too, with the same dialogue.
void read_input(const Json& row, const std::string& where, Question& question) {
  try {
    question.before = read_dialogue(text_of(row, "input", where));
  } catch (const Error& e) {
    fail(ErrorKind::data, "{}: {}", where, e.what());
  }
  QLORA_CHECK(question.before.back().role == "user", data,
              "{}: `input` must end with a question and `### Assistant:`", where);
}

// `last`: the file ends with it, without the end of a line.
Question parse_question(const std::string& text, const std::string& where, bool last) {
  const Json row = parse_json_line(text, where, last);
  QLORA_CHECK(row.is_object(), data, "{}: a question must be a JSON object, found {}", where,
              row.type_name());
  Question question;
  question.id = id_of(row, where);
  if (row.contains("category")) question.category = text_of(row, "category", where);
  if (row.contains("turns")) {
    read_turns(row, where, question);
  } else if (row.contains("input")) {
    read_input(row, where, question);
  } else {
    question.before = {{"user", text_of(row, "text", where)}};
  }
  question.row = text;
  return question;
}

std::string set_name(const Path& path) {
  std::string name = path.filename().string();
  for (std::string_view ending : {".gz", ".jsonl", ".json"})
    if (name.ends_with(ending)) name.erase(name.size() - ending.size());
  constexpr std::string_view kEnd = "_questions";
  if (name.size() > kEnd.size() && name.ends_with(kEnd)) name.erase(name.size() - kEnd.size());
  return name;
}

}  // namespace

QuestionFile parse_questions(const Path& path, std::string_view content) {
  QuestionFile file;
  file.path = path.string();
  file.name = set_name(path);
  file.content = sha256(content);
  std::map<std::string, int64_t> seen;
  int64_t line = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const std::string text(content.substr(begin, end - begin));
    begin = end + 1;
    ++line;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", file.path, line);
    Question question = parse_question(text, where, end == content.size());
    question.line = line;
    auto [place, fresh] = seen.try_emplace(question.id, line);
    QLORA_CHECK(fresh, data, "{}: the question id {} is that of line {} already", where, question.id,
                place->second);
    file.questions.push_back(std::move(question));
  }
  QLORA_CHECK(!file.questions.empty(), data, "{}: holds no question", file.path);
  return file;
}

QuestionFile read_questions(const Path& path) {
  return parse_questions(path, read_file(path));
}

}  // namespace qlora
