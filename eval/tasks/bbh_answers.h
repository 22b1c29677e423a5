#pragma once
// How answers to BIG-Bench-Hard are read out of a text.

#include <string>

#include "eval/tasks/task.h"

namespace qlora {

// After "the answer is ", up to the character before the last of the line (which is the period).
std::string bbh_stated_answer(const TaskItem&, const std::string& text);
// The same after four wordings, for prompts without examples.
std::string bbh_stated_answer_any(const TaskItem&, const std::string& text);
// The first or last thing that looks like an answer of the item's task: a letter in brackets, a word of a
// few, a number, brackets, the words of a list. A letter that is not there may be told by its choice's text.
// Numbers in words are not read.
std::string bbh_first_answer(const TaskItem&, const std::string& text);
std::string bbh_last_answer(const TaskItem&, const std::string& text);

}  // namespace qlora
