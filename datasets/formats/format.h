#pragma once
// Prompt formats: from a record's fields to the two texts that training knows. Adding one: a file with its
// function, a declaration here, and a line in registry.cpp.

#include <string>
#include <string_view>
#include <vector>

#include "datasets/record.h"

namespace qlora {

// What the model reads and what it should answer. An empty input means: learn all of the output.
struct Pieces {
  std::string input, output;
};

struct PromptFormat {
  const char* name;
  Pieces (*apply)(const Record&);  // throws Error(data) naming file, line and field
  // True when a record looks like this format. Null: only by name.
  bool (*recognises)(const Record&);
};

// The format called `name`, or, when it is empty, the first that recognises `first`. Throws Error(usage) with
// the nearest name, or Error(data) listing the fields that were found.
const PromptFormat& find_format(std::string_view name, const Record& first);
std::vector<std::string> dataset_formats();

// The formats of qlora.py.
Pieces alpaca(const Record&);         // instruction, input (may be missing, null or empty), output
Pieces self_instruct(const Record&);  // prompt, completion
Pieces input_output(const Record&);   // input, output, as they are
Pieces hh_rlhf(const Record&);        // chosen: a whole dialogue
Pieces oasst1(const Record&);         // text: a whole conversation
Pieces chip2(const Record&);          // text: "<human>: ...\n<bot>: ..."

// How chip2 marks the answer.
inline constexpr std::string_view kChip2Answer = "\n<bot>: ";

}  // namespace qlora
