#pragma once
// Files of questions that models answer freely: JSON lines, plain or gzip, in the layouts of
//   Vicuna-80 and the QLoRA release     {"question_id": 1, "text": "...", "category": "generic"}
//   FastChat's MT-bench                 {"question_id": 81, "category": "writing", "turns": ["...", "..."]}
//   the release's Open Assistant set    {"input": "### Human: ... ### Assistant:", "message_id": "...", ...}
// The last holds a whole dialogue in `input`; its prompts are those of the release, byte for byte, by the
// template guanaco.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/file.h"
#include "core/base/hash.h"
#include "core/text/chat_template.h"

namespace qlora {

struct Question {
  std::string id;                    // question_id, else message_id, as text
  std::string category;              // empty when there is none
  std::vector<ChatMessage> before;   // the dialogue so far, the first question at its end
  std::vector<std::string> further;  // what the user says next, after each answer
  std::string row;                   // the line of the file
  int64_t line = 0;                  // from 1
  int64_t turns() const { return 1 + static_cast<int64_t>(further.size()); }
};

struct QuestionFile {
  std::string path;
  std::string name;  // of the set: the file's name without .jsonl, .json, .gz and "_questions"
  Digest content{};  // of the unpacked bytes
  std::vector<Question> questions;
};

// Throws Error(data) with file and line: bad JSON, no id, no question, two questions of one id.
QuestionFile read_questions(const Path&);
QuestionFile parse_questions(const Path&, std::string_view content);

}  // namespace qlora
