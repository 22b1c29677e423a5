#include "eval/judge/judge_prompts.h"

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "eval/judge/alpaca_eval_outputs.h"
#include "eval/judge/rows.h"

namespace qlora {

namespace {

constexpr std::array<std::string_view, 4> kHolders = {"{question}", "{answer_1}", "{answer_2}", "{prompt}"};

constexpr const char* kTemplate =
    "Question:\n{question}\n\n--- Answer of assistant 1 ---\n{answer_1}\n--- End of assistant 1 ---\n\n"
    "--- Answer of assistant 2 ---\n{answer_2}\n--- End of assistant 2 ---\n\n{prompt}\n";
constexpr const char* kSystem = "You compare answers of two assistants carefully and without favour.";
constexpr const char* kGeneral =
    "Compare the two answers: are they right, do they answer what was asked, are they clear and complete? "
    "The "
    "order in which they stand here says nothing about them, nor does their length alone.";
constexpr const char* kCoding =
    "Compare the two programs: do they solve the task, are they correct and efficient, can they be read and "
    "maintained? The order in which they stand here says nothing about them.";
constexpr const char* kMath =
    "Solve the problem yourself first. Then check both answers step by step against your solution; a wrong "
    "result "
    "counts more than a clumsy way. The order in which they stand here says nothing about them.";
constexpr const char* kVerdict =
    " Give your reasons in a few sentences. Then write one last line that holds a single digit and nothing "
    "else: 1 "
    "if assistant 1 is better, 2 if assistant 2 is better, 3 if they are equally good.";
constexpr const char* kPoints =
    " Begin with one line that holds two numbers from 0 to 10 and nothing else, the points of assistant 1 "
    "and of "
    "assistant 2, with a space between them. Give your reasons in the lines below.";

// A row of AlpacaEval has an instruction and no id.
bool is_instruction(const Row& row) {
  return row.has("instruction") && !row.has("question_id") && !row.has("message_id");
}

std::string question_text(const Row& row) {
  if (is_instruction(row)) return row.text("instruction");
  auto turns = row.json().find("turns");
  if (turns == row.json().end()) return row.text("text");
  QLORA_CHECK(turns->is_array() && !turns->empty() && (*turns)[0].is_string(), data,
              "{}: `turns` must be a list of texts", row.where());
  return (*turns)[0].get<std::string>();
}

}  // namespace

std::vector<JudgePrompt> read_judge_prompts(const Path& path) {
  std::vector<JudgePrompt> prompts;
  std::set<std::string> categories, ids;
  for_each_row(read_file(path), path.string(), [&](const Row& row) {
    JudgePrompt prompt;
    prompt.id = row.id("prompt_id");
    prompt.system = row.text("system_prompt");
    prompt.prompt_template = row.text("prompt_template");
    prompt.category = row.text_or_empty("category");
    for (std::string_view holder : kHolders)
      QLORA_CHECK(holder == "{prompt}" || prompt.prompt_template.find(holder) != std::string::npos, data,
                  "{}: `prompt_template` has no {}", row.where(), holder);
    auto defaults = row.json().find("defaults");
    if (defaults != row.json().end() && defaults->is_object() && defaults->contains("prompt"))
      prompt.instruction = Row(*defaults, path.string(), row.line()).text("prompt");
    QLORA_CHECK(categories.insert(prompt.category).second, data, "{}: a second prompt for category `{}`",
                row.where(), prompt.category);
    QLORA_CHECK(ids.insert(prompt.id).second, data,
                "{}: a second prompt with prompt_id {}: votes know theirs by it", row.where(), prompt.id);
    prompts.push_back(std::move(prompt));
  });
  QLORA_CHECK(!prompts.empty(), data, "{}: no prompt in this file", path.string());
  return prompts;
}

std::vector<JudgePrompt> default_judge_prompts(bool points) {
  const std::string ending = points ? kPoints : kVerdict;
  return {{"1", kSystem, kTemplate, kGeneral + ending, "general"},
          {"2", kSystem, kTemplate, kCoding + ending, "coding"},
          {"3", kSystem, kTemplate, kMath + ending, "math"}};
}

std::string wording_of(const JudgePrompt& prompt, bool points) {
  const Json said = {prompt.system, prompt.prompt_template, prompt.instruction, points};
  return hex(sha256(said.dump(-1, ' ', false, Json::error_handler_t::replace)));
}

const JudgePrompt& prompt_for(const std::vector<JudgePrompt>& prompts, const std::string& category) {
  for (const JudgePrompt& prompt : prompts)
    if (prompt.category == category) return prompt;
  return prompts.front();
}

std::string fill_prompt(const JudgePrompt& prompt, std::string_view question, std::string_view answer_1,
                        std::string_view answer_2) {
  const std::array<std::string_view, 4> values = {question, answer_1, answer_2, prompt.instruction};
  std::string out;
  std::string_view rest = prompt.prompt_template;
  while (!rest.empty()) {
    size_t at = rest.find('{');
    out += rest.substr(0, at);
    if (at == std::string_view::npos) break;
    rest.remove_prefix(at);
    size_t taken = 1;
    for (size_t i = 0; i < kHolders.size(); ++i)
      if (rest.starts_with(kHolders[i])) {
        out += values[i];
        taken = kHolders[i].size();
      }
    if (taken == 1) out += '{';
    rest.remove_prefix(taken);
  }
  return out;
}

std::vector<JudgeQuestion> read_judge_questions(const Path& path) {
  std::vector<JudgeQuestion> questions;
  std::map<std::string, int> seen;  // lines
  for_each_row(read_file(path), path.string(), [&](const Row& row) {
    JudgeQuestion question;
    question.text = question_text(row);
    question.item = is_instruction(row) ? item_of_words(question.text)
                                        : row.id(row.has("question_id") ? "question_id" : "message_id");
    question.category = row.text_or_empty("category");
    auto [place, fresh] = seen.try_emplace(question.item, row.line());
    QLORA_CHECK(fresh, data, "{}: the question id {} is that of line {} already", row.where(), question.item,
                place->second);
    questions.push_back(std::move(question));
  });
  QLORA_CHECK(!questions.empty(), data, "{}: no question in this file", path.string());
  return questions;
}

}  // namespace qlora
