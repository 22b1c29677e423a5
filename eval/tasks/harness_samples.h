#pragma once
// The samples of a task in lm-evaluation-harness' layout (harness_files.h).

#include <nlohmann/json.hpp>
#include <string>

#include "eval/tasks/harness_files.h"

namespace qlora {

struct HarnessSamples {
  std::string lines;  // JSON, one a filter and item
  std::string hash;   // over the hashes of all documents, prompts and right answers: `task_hashes`
};
HarnessSamples make_harness_samples(const HarnessTask&);

// NAME, or NAME_PART.
std::string harness_name(const HarnessTask&);
bool is_of_part(const HarnessTask&, const TaskItemResult&);
nlohmann::ordered_json harness_number(double);  // null where it is not finite
// How a generated text ends, as the harness' configurations say it.
nlohmann::ordered_json generation_arguments(const HarnessTask&);

}  // namespace qlora
