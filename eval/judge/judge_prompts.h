#pragma once
// What a judge is asked: prompt templates in the layout of the QLoRA release (eval/prompts/*_prompt_*.jsonl),
//   {"prompt_id", "system_prompt", "prompt_template", "defaults": {"prompt"}, "category"}
// whose prompt_template holds {question}, {answer_1}, {answer_2} and {prompt}; and the questions.

#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"

namespace qlora {

struct JudgePrompt {
  std::string id;  // prompt_id as text
  std::string system, prompt_template, instruction;
  std::string category;  // of questions: general, coding, math; the first prompt serves all that has none
};

// Throws Error(data) with file and line for a missing field or place holder, two prompts of one category
// or of one id, or no prompt at all.
std::vector<JudgePrompt> read_judge_prompts(const Path&);
// In our own words: verdicts (the last line is 1, 2 or 3), or points from 0 to 10 (the first line is two
// numbers).
std::vector<JudgePrompt> default_judge_prompts(bool points);

// Of all that a prompt says, and of whether it asks for points: prompts of one id and other words differ
// here.
std::string wording_of(const JudgePrompt&, bool points);

// The prompt for a question's category. REQUIRES: not empty.
const JudgePrompt& prompt_for(const std::vector<JudgePrompt>&, const std::string& category);

// Fills in the place holders, in one pass: what an answer says is never taken for one.
std::string fill_prompt(const JudgePrompt&, std::string_view question, std::string_view answer_1,
                        std::string_view answer_2);

struct JudgeQuestion {
  std::string item, text, category;
};
// {"question_id", "text" or "turns": [first, ...], "category"}, {"message_id", "text", ...}, or AlpacaEval's
// {"instruction"}, in its files of outputs too. Throws
// Error(data) with file and line, also for an id that stands twice.
std::vector<JudgeQuestion> read_judge_questions(const Path&);

}  // namespace qlora
