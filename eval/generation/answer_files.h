#pragma once
// Files of answers, one JSON object a line, written as Python's json.dumps writes them:
//   the QLoRA release's   {"question_id", "text", "category", "prompt", "generation",
//   "generation_truncated"},
//                         for its Open Assistant set {"input", "output", "message_id", "parent_id", "rank",
//                         "lang", "prompt", "generation", "generation_truncated"}
//   FastChat's            {"question_id", "answer_id", "model_id", "choices": [{"index": 0, "turns": [...]}],
//                         "tstamp"}

#include <span>
#include <string>
#include <string_view>

#include "eval/generation/questions.h"

namespace qlora {

// One line of a file in the release's layout, with the newline.
std::string release_row(const Question&, const std::string& prompt, const std::string& generation,
                        const std::string& truncated);
// One line of FastChat's; `turns` are the answers. tstamp: seconds since 1970.
std::string fastchat_row(const Question&, const std::string& model_id, std::span<const std::string> turns,
                         double tstamp);

// An answer's id: 22 characters of shortuuid's alphabet, a function of system, question and answers.
std::string answer_id(std::string_view model_id, std::string_view question,
                      std::span<const std::string> turns);

// Without blanks at both ends, as the release's texts are.
std::string_view stripped(std::string_view text);

}  // namespace qlora
